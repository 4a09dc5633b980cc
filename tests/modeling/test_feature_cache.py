"""Features of a frozen backbone are computed once for each view, and are the same."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model

KEEP = {"MODEL.DETR.FEATURE_CACHE_GB": 1.0, "INPUT.CROP_PROB": 0.0, "MODEL.BACKBONE.FREEZE_AT": 5}


def losses(model, batch) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)  # of dropout
    return {name: loss.detach() for name, loss in model(batch).items()}


@pytest.fixture
def count_runs():
    """Counts the images that go through the backbone of a model."""

    def count(model) -> list[int]:
        sizes: list[int] = []
        model.detector.backbone.register_forward_pre_hook(
            lambda _, inputs: sizes.append(len(inputs[0]))
        )
        return sizes

    return count


@pytest.mark.parametrize("sizes", [[(64, 96)] * 2, [(64, 96), (75, 60)]], ids=["equal", "padded"])
def test_losses_and_gradients_are_those_without(tiny_model, make_batch, sizes):
    batch = make_batch(*sizes)
    plain, keeping = tiny_model({**KEEP, "MODEL.DETR.FEATURE_CACHE_GB": 0.0}), tiny_model(KEEP)
    expected = losses(plain, batch)
    for _ in range(2):  # computed, and then kept
        actual = losses(keeping, batch)
        assert actual.keys() == expected.keys()
        for name, loss in actual.items():
            torch.testing.assert_close(loss, expected[name], rtol=1e-4, atol=1e-5)
    for model in (plain, keeping):
        torch.manual_seed(0)
        sum(model(batch).values()).backward()
    for (name, ours), theirs in zip(keeping.named_parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), name
        if ours.grad is not None:
            difference = (ours.grad - theirs.grad).norm()
            assert difference <= 1e-3 * theirs.grad.norm() + 1e-6, name


def test_each_view_is_computed_once(tiny_model, make_batch, count_runs):
    model = tiny_model(KEEP)
    runs = count_runs(model)
    batch = make_batch((64, 96), (64, 96))
    flipped = [{**x, "image": x["image"].flip(2)} for x in batch]
    for views in (batch, flipped, batch, flipped, batch[::-1]):
        losses(model, views)
    assert runs == [1, 1, 1, 1]
    assert (model.feature_cache.hits, model.feature_cache.misses) == (6, 4)


def test_the_order_of_a_batch_is_kept(tiny_model, make_batch):
    model, batch = tiny_model(KEEP), make_batch((64, 96), (64, 96), (64, 96))
    images = model.preprocess(batch)
    pixels = [x["image"] for x in batch]
    expected = model.detector.features(images.tensor, None)
    for order in ([0, 1, 2], [2, 0, 1]):
        chosen = model.preprocess([batch[i] for i in order])
        kept = model.feature_cache.features(model.detector, chosen, [pixels[i] for i in order])
        for ours, theirs in zip(kept, expected, strict=True):
            torch.testing.assert_close(ours, theirs[order], rtol=1e-4, atol=1e-5)


def test_another_padding_is_another_view(tiny_model, make_batch, count_runs):
    """Borders of the convolutions see what is beside an image."""
    model = tiny_model(KEEP)
    runs = count_runs(model)
    small, large = make_batch((64, 64), (96, 96))
    losses(model, [small])
    losses(model, [small, large])
    assert len(runs) == 3


def test_memory_is_bounded(tiny_model, make_batch, count_runs, log_lines):
    batch = make_batch(*[(64, 96)] * 4)
    whole = tiny_model(KEEP)
    losses(whole, batch)
    size = whole.feature_cache.size
    assert size == 4 * sum(
        x.numel() * x.element_size() for x in next(iter(whole.feature_cache.kept.values()))
    )
    model = tiny_model({**KEEP, "MODEL.DETR.FEATURE_CACHE_GB": 0.6 * size / 2**30})
    runs = count_runs(model)
    for _ in range(3):
        losses(model, batch)
    assert len(model.feature_cache.kept) == 2 and model.feature_cache.size <= 0.6 * size
    assert len(runs) == 4 + 2 + 2
    (warning,) = [line for line in log_lines if "is used up" in line]
    assert "by 2 views" in warning
    told = [line for line in log_lines if line.startswith("Features of the frozen backbone")]
    assert "for a view of 64×96 pixels" in told[-1] and "hold 2 of this size" in told[-1]


def test_prediction_keeps_nothing(tiny_model, make_batch):
    model = tiny_model(KEEP).eval()
    model(make_batch((64, 96)))
    assert not model.feature_cache.kept


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_masks_are_trained_on_kept_features(tiny_model, make_batch, count_runs, norm):
    """The frozen detector of the stage "masks" has a frozen backbone, whatever was trained."""
    frozen = {**KEEP, "MODEL.BACKBONE.FREEZE_AT": 0, "MODEL.DETR.FREEZE_DETECTOR": True}
    model = tiny_model({**frozen, "MODEL.RESNETS.NORM": norm})
    assert not model.detector.backbone.training
    runs, batch = count_runs(model), make_batch((64, 96))
    first, second = losses(model, batch), losses(model, batch)
    assert runs == [1] and first.keys() == {"loss_mask", "loss_dice"}
    assert all(torch.equal(loss, second[name]) for name, loss in first.items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"MODEL.BACKBONE.FREEZE_AT": 2}, "needs a backbone that isn't trained"),
        ({"MODEL.BACKBONE.FREEZE_AT": 0, "MODEL.RESNETS.NORM": "BN"}, "isn't trained"),
        ({"INPUT.CROP_PROB": 0.5}, "INPUT.CROP_PROB is 0.5, but must be 0 with"),
        ({"MODEL.DETR.FEATURE_CACHE_GB": -1.0}, "FEATURE_CACHE_GB is -1.0, but must be at least 0"),
    ],
)
def test_what_it_cannot_hold_is_refused(tiny_config, overrides, message):
    with pytest.raises(ValueError, match=message):
        build_model(tiny_config({**KEEP, **overrides}))

"""Choosing and merging again without another forward pass."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from detr_d2.modeling.inference_options import PanopticOptions

OVERRIDES = {"MODEL.DETR.TEST.STUFF_MERGING": "merged"}


def sure_of_objects(model):
    """Makes every query's best class an object, with scores that differ."""
    model.detector.class_head.weight.data.mul_(5)
    model.detector.class_head.bias.data[-1] = -100
    return model.eval()


@pytest.fixture
def model(tiny_model):
    return sure_of_objects(tiny_model(OVERRIDES))


@pytest.fixture
def watched(model):
    """The queries of each call of the mask head."""
    calls = []
    model.mask_head.register_forward_pre_hook(
        lambda _module, _args, kwargs: calls.append(kwargs["query_index"].tolist()),
        with_kwargs=True,
    )
    return calls


def panoptic(raw, score_thresh: float, **changes):
    return raw.panoptic(replace(PanopticOptions(score_thresh, "merged", 4), **changes))


def thresholds(raw) -> list[float]:
    """One below all scores, those between two neighbours, one above all."""
    scores = raw.logits.softmax(-1)[:, :-1].amax(-1).sort().values
    return [0.0, *((scores[1:] + scores[:-1]) / 2).tolist(), 1.0]


def test_every_threshold_gives_what_a_model_with_it_does(tiny_model, make_batch):
    """Bit for bit where masks are made one by one: in chunks, rounding depends on the others."""
    one_by_one = {"MODEL.DETR.MASK_HEAD.CHUNK_SIZE": 1}
    model = sure_of_objects(tiny_model(one_by_one))
    batch = make_batch((50, 70), seed=3)
    (raw,) = model.raw_predictions(batch)
    # From few queries to all and back: no mask depends on which others were there.
    for threshold in [*reversed(thresholds(raw)), *thresholds(raw)]:
        for merging in ("merged", "reference"):
            other = tiny_model(
                {
                    **one_by_one,
                    "MODEL.DETR.TEST.SCORE_THRESH": threshold,
                    "MODEL.DETR.TEST.STUFF_MERGING": merging,
                    "MODEL.DETR.TEST.INSTANCE_SCORE_THRESH": threshold,
                }
            ).eval()
            other.load_state_dict(model.state_dict())
            (expected,) = other(batch)
            ids, segments = panoptic(raw, threshold, stuff_merging=merging)
            expected_ids, expected_segments = expected["panoptic_seg"]
            assert torch.equal(ids, expected_ids)
            assert segments == expected_segments
            things = raw.instances(threshold)
            assert torch.equal(things.scores, expected["instances"].scores)
            assert torch.equal(things.pred_boxes.tensor, expected["instances"].pred_boxes.tensor)
            assert torch.equal(things.pred_masks, expected["instances"].pred_masks)


def test_each_mask_is_made_once(model, watched, make_batch):
    (raw,) = model.raw_predictions(make_batch((64, 96)))
    assert watched == []
    for threshold in reversed(thresholds(raw)):
        panoptic(raw, threshold)
    made = [query for call in watched for query in call]
    assert sorted(made) == list(range(len(raw.logits)))
    calls = len(watched)
    for threshold in thresholds(raw):
        panoptic(raw, threshold)
    assert len(watched) == calls


def test_masks_are_those_of_the_head_and_need_no_gradient(model, make_batch):
    batch = make_batch((64, 96))
    with torch.no_grad():
        detected = model.detector(model.preprocess(batch))
        every = torch.arange(detected.logits.shape[2])
        expected = model.masks_of(detected, torch.zeros_like(every), every)
    (raw,) = model.raw_predictions(batch)
    for some in ([4], [2, 0], [], [0, 1, 2, 3, 4, 5, 6]):
        masks = raw.masks(torch.tensor(some, dtype=torch.int64))
        assert not masks.requires_grad
        torch.testing.assert_close(masks, expected[some])


@pytest.mark.parametrize("invariant", [False, True])
def test_the_output_has_it_where_it_is_wanted(tiny_model, make_batch, invariant):
    overrides = {"MODEL.DETR.TEST.RAW_ON": True, "MODEL.DETR.BATCH_INVARIANT": invariant}
    batch = make_batch((64, 96), (50, 70))
    for result, image in zip(tiny_model(overrides).eval()(batch), batch, strict=True):
        ids, segments = result["raw"].panoptic(PanopticOptions(0.85, "reference", 4))
        assert torch.equal(ids, result["panoptic_seg"][0])
        assert segments == result["panoptic_seg"][1]
        assert result["raw"].sizes.network == tuple(image["image"].shape[-2:])


def test_without_masks(tiny_model, make_batch):
    model = tiny_model({"MODEL.DETR.MASK_ON": False}).eval()
    (raw,) = model.raw_predictions(make_batch((64, 96)))
    assert not raw.has_masks
    assert not raw.instances(0.0).has("pred_masks")
    with pytest.raises(ValueError, match="MASK_ON is False"):
        panoptic(raw, 0.5)

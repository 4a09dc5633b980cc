"""Checkpoints load completely or not at all."""

import logging
import pickle
from collections import OrderedDict

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from detr_d2.engine.checkpoint import StrictCheckpointer


@pytest.fixture(scope="module")
def models(make_tiny_cfg, tmp_path_factory) -> dict[str, nn.Module]:
    """A model with masks and a bare detector."""
    folder = tmp_path_factory.mktemp("checkpoint")
    return {
        name: build_model(make_tiny_cfg(folder, "MODEL.DETR.MASK_ON", mask_on))
        for name, mask_on in (("masks", True), ("boxes", False))
    }


@pytest.fixture
def saved(models, tmp_path):
    """Writes weights unlike those of the model, after a change; returns the path and them."""

    def save(name: str, change=lambda weights: None, file_name: str = "weights.pth"):
        weights = OrderedDict((k, v + 1) for k, v in models[name].state_dict().items())
        change(weights)
        path = str(tmp_path / file_name)
        torch.save({"model": weights}, path)
        return path, weights

    return save


def assert_loaded(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    state = model.state_dict()
    assert [k for k, v in weights.items() if k in state and not torch.equal(state[k], v)] == []


@pytest.mark.parametrize("name", ["masks", "boxes"])
def test_a_whole_file_loads(models, saved, name):
    path, weights = saved(name)
    StrictCheckpointer(models[name]).load(path)
    assert_loaded(models[name], weights)


def test_a_file_of_another_process_group_loads(models, saved):
    """Distributed training wraps the model; weights alone, without a dict around, load as well."""
    path, weights = saved("masks")
    torch.save({f"module.{key}": value for key, value in weights.items()}, path)
    StrictCheckpointer(models["masks"]).load(path)
    assert_loaded(models["masks"], weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w.pop("detector.query_embed.weight"),
            r"missing in the file: detector\.query_embed\.weight",
        ),
        (
            lambda w: w.update({"detector.extra": torch.zeros(1)}),
            r"in the file, but not in the model: detector\.extra",
        ),
        (
            lambda w: w.update({"detector.class_head.bias": torch.zeros(251)}),
            r"detector\.class_head\.bias: \(251,\) in the file, \(13,\) in the model",
        ),
        (
            lambda w: w.update({"mask_head.output_conv.bias": torch.zeros(7)}),
            r"mask_head\.output_conv\.bias: \(7,\) in the file, \(1,\) in the model",
        ),
        (
            lambda w: w.pop("mask_head.output_conv.bias"),
            r"missing in the file: mask_head\.output_conv\.bias",
        ),
        (lambda w: w.clear(), r"missing in the file: .* and \d+ more"),
    ],
    ids=["missing", "extra", "shape", "mask_shape", "mask_missing", "empty"],
)
def test_what_does_not_fit_is_named_with_its_file(models, saved, change, message):
    path, _ = saved("masks", change)
    with pytest.raises(ValueError, match=rf"weights\.pth doesn't fit(.|\n)*{message}"):
        StrictCheckpointer(models["masks"]).load(path)


def test_all_problems_are_told_at_once(models, saved):
    def change(weights):
        weights["detector.class_head.bias"] = torch.zeros(251)
        weights["detector.extra"] = weights.pop("detector.query_embed.weight")

    path, _ = saved("masks", change)
    with pytest.raises(ValueError) as caught:
        StrictCheckpointer(models["masks"]).load(path)
    for name in ("class_head.bias", "query_embed.weight", "detector.extra"):
        assert str(caught.value).count(f"detector.{name.removeprefix('detector.')}") == 1


def test_the_mask_head_may_be_missing_where_that_is_allowed(models, saved, caplog):
    path, weights = saved("boxes")
    with pytest.raises(ValueError, match=r"missing in the file: mask_head\."):
        StrictCheckpointer(models["masks"]).load(path)
    before = {k: v.clone() for k, v in models["masks"].state_dict().items()}
    with caplog.at_level(logging.INFO):
        StrictCheckpointer(models["masks"], mask_head_may_be_missing=True).load(path)
    assert f"No mask head in {path}: it starts untrained." in caplog.text
    assert_loaded(models["masks"], weights)
    assert_loaded(models["masks"], {k: v for k, v in before.items() if k.startswith("mask_head.")})


def test_half_a_mask_head_is_refused(models, saved):
    path, _ = saved("masks", lambda weights: weights.pop("mask_head.output_conv.weight"))
    with pytest.raises(ValueError, match=r"missing in the file: mask_head\.output_conv\.weight"):
        StrictCheckpointer(models["masks"], mask_head_may_be_missing=True).load(path)


def test_nothing_is_said_of_a_mask_head_that_is_there(models, saved, caplog):
    path, _ = saved("masks")
    with caplog.at_level(logging.INFO):
        StrictCheckpointer(models["masks"], mask_head_may_be_missing=True).load(path)
    assert "No mask head" not in caplog.text


def test_no_part_of_the_detector_may_ever_be_missing(models, saved):
    path, _ = saved("boxes", lambda weights: weights.pop("detector.query_embed.weight"))
    with pytest.raises(ValueError, match=r"missing in the file: .*detector\.query_embed\.weight"):
        StrictCheckpointer(models["masks"], mask_head_may_be_missing=True).load(path)


def test_a_bare_detector_ignores_a_mask_head(models, saved):
    path, weights = saved("masks")
    StrictCheckpointer(models["boxes"]).load(path)
    assert_loaded(models["boxes"], weights)


def test_a_backbone_of_detectron2s_model_zoo_loads(models, tmp_path):
    """Its names are matched by their ends, and the rest of the model stays as it is."""
    model = models["masks"]
    prefix = "detector.backbone."
    before = {k: v.clone() for k, v in model.state_dict().items()}
    backbone = {
        key.removeprefix(prefix): (value + 2).numpy()
        for key, value in before.items()
        if key.startswith(prefix)
    }
    content = {"model": backbone, "__author__": "test", "matching_heuristics": True}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(content))
    StrictCheckpointer(model, mask_head_may_be_missing=True).load(str(path))
    expected = {k: v + 2 if k.startswith(prefix) else v for k, v in before.items()}
    assert_loaded(model, expected)


def test_no_path_loads_nothing(models):
    before = {k: v.clone() for k, v in models["masks"].state_dict().items()}
    StrictCheckpointer(models["masks"]).load("")
    assert_loaded(models["masks"], before)


def test_checkpoints_hold_nothing_but_tensors_and_plain_values(finished_run):
    """So that they load where running code of a file is forbidden."""
    for stage in ("boxes", "masks"):
        for path in (finished_run.folder / stage).glob("*.pth"):
            content = torch.load(path, weights_only=True)
            assert content.keys() >= {"model", "trainer", "iteration"}
            assert content["trainer"].keys() >= {"iteration", "optimizer", "hooks"}

"""Checkpoints say which mask head they hold; another one is refused by name, or starts fresh."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from detr_d2.checkpoint import DESCRIPTION, CheckpointError, read_checkpoint
from detr_d2.engine.checkpointer import StrictCheckpointer
from detr_d2.modeling import DETR

NAME = "MODEL.DETR.MASK_HEAD.NAME"
ATTENTION, PIXEL = "AttentionMaskHead", "PixelEmbeddingMaskHead"
RESIZE = ("MODEL.DETR.RESIZE_ON_LOAD", True)
FROZEN = ("MODEL.DETR.FREEZE_DETECTOR", True)
OTHER_WAY = pytest.mark.parametrize(("theirs", "ours"), [(ATTENTION, PIXEL), (PIXEL, ATTENTION)])


@pytest.fixture(scope="module")
def make_model(make_tiny_cfg, tmp_path_factory) -> Callable[..., DETR]:
    cfg = make_tiny_cfg(tmp_path_factory.mktemp("heads"))

    def make(head: str, *overrides: object, seed: int = 0) -> DETR:
        changed = cfg.clone()
        changed.merge_from_list([NAME, head, *overrides])
        torch.manual_seed(seed)
        return build_model(changed)

    return make


@pytest.fixture
def save(make_model, tmp_path) -> Callable[[str], str]:
    def save(head: str) -> str:
        StrictCheckpointer(make_model(head), str(tmp_path)).save(head)
        return str(tmp_path / f"{head}.pth")

    return save


@pytest.mark.parametrize("head", [ATTENTION, PIXEL])
def test_a_checkpoint_names_its_head(save, head):
    path = save(head)
    assert read_checkpoint(path).mask_head == head
    content = torch.load(path)
    del content[DESCRIPTION]  # as in files of older versions
    torch.save(content, path)
    assert read_checkpoint(path).settings.mask_head is None
    assert read_checkpoint(path).mask_head == head


@pytest.mark.parametrize("head", [ATTENTION, PIXEL])
def test_the_same_head_loads_completely(save, make_model, head):
    path, model = save(head), make_model(head, seed=1)
    StrictCheckpointer(model).load(path)
    saved = torch.load(path)["model"]
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())


@OTHER_WAY
@pytest.mark.parametrize("to_train", [False, True])
def test_another_head_is_refused_by_name(save, make_model, theirs, ours, to_train):
    with pytest.raises(CheckpointError) as caught:
        StrictCheckpointer(make_model(ours), to_train=to_train).load(save(theirs))
    first, *problems = str(caught.value).splitlines()
    assert "(detector and mask head)" in first
    advice = ", or MODEL.DETR.RESIZE_ON_LOAD True to train a fresh mask head" if to_train else ""
    assert problems == [
        f"  its mask head is {theirs}, the model's is {ours}. Set {NAME} {theirs}{advice}."
    ]


@OTHER_WAY
def test_resizing_changes_nothing_for_a_model_that_only_predicts(save, make_model, theirs, ours):
    with pytest.raises(CheckpointError, match=f"its mask head is {theirs}"):
        StrictCheckpointer(make_model(ours, *RESIZE)).load(save(theirs))


@OTHER_WAY
@pytest.mark.parametrize("frozen", [(), FROZEN], ids=["joint", "masks"])
def test_a_fresh_head_is_trained_on_the_detector(save, make_model, theirs, ours, frozen, caplog):
    path, model = save(theirs), make_model(ours, *RESIZE, *frozen, seed=1)
    initial = {name: tensor.clone() for name, tensor in model.mask_head.state_dict().items()}
    StrictCheckpointer(model, to_train=True).load(path)
    saved = torch.load(path)["model"]
    for name, tensor in model.state_dict().items():
        _, of_head, rest = name.rpartition("mask_head.")
        assert torch.equal(tensor, initial[rest] if of_head else saved[name]), name
    assert f"Its {theirs} is left out: the model's {ours} starts fresh." in caplog.text


@OTHER_WAY
def test_detectron2s_own_loader_refuses_it_too(save, make_model, theirs, ours):
    with pytest.raises(CheckpointError, match=f"its mask head is {theirs}"):
        DetectionCheckpointer(make_model(ours).eval()).load(save(theirs))


def test_a_compiled_head_is_no_other_head(save, make_model):
    model = make_model(PIXEL, seed=1).eval()
    model.mask_head.pixel_embedding = torch.compile(model.mask_head.pixel_embedding)
    DetectionCheckpointer(model).load(save(PIXEL))


def test_a_bare_detector_takes_the_rest(save, make_model):
    for head in (ATTENTION, PIXEL):
        StrictCheckpointer(make_model(head, "MODEL.DETR.MASK_ON", False)).load(save(head))

"""Both stages with a mask head that embeds pixels, and a fresh one on another model's detector."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from detr_d2.checkpoint import CheckpointError, read_checkpoint
from detr_d2.engine import train

HEAD = ("MODEL.DETR.MASK_HEAD.NAME", "PixelEmbeddingMaskHead", "MODEL.DETR.MASK_HEAD.WIDTH", 16)
NO_TEST = ("DATASETS.TEST", ())


def weights_of(folder: Path, stage: str) -> dict[str, torch.Tensor]:
    return torch.load(folder / stage / "model_final.pth", weights_only=True)["model"]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_mask_stage_trains_the_head_alone(make_tiny_cfg, tmp_path, checkpointing):
    cfg = make_tiny_cfg(tmp_path, *HEAD, "MODEL.DETR.MASK_HEAD.CHECKPOINTING", checkpointing)
    results = train(cfg)
    assert {"bbox", "segm", "panoptic_seg"} <= results.keys()
    boxes, masks = (weights_of(tmp_path, stage) for stage in ("boxes", "masks"))
    assert all(torch.equal(tensor, masks[name]) for name, tensor in boxes.items())
    head = {name for name in masks if name not in boxes}
    assert head and all(name.startswith("mask_head.") for name in head)
    checkpoint = read_checkpoint(str(tmp_path / "masks" / "model_final.pth"))
    assert checkpoint.mask_head == "PixelEmbeddingMaskHead"
    lines = (tmp_path / "masks" / "metrics.json").read_text(encoding="utf-8").splitlines()
    figures = {name for line in lines for name in json.loads(line)}
    assert {"metrics/mask_iou", "metrics/mask_similarity", "metrics/empty_masks"} <= figures
    assert not any(name.startswith("attention_") for name in figures)


def test_a_fresh_head_needs_a_word(make_tiny_cfg, tmp_path):
    steps = ("SOLVER.MAX_ITER", 1, "SOLVER.MASK_STAGE.MAX_ITER", 1)
    train(make_tiny_cfg(tmp_path / "attention", *steps, *NO_TEST))
    whole = str(tmp_path / "attention" / "masks" / "model_final.pth")
    masks = (*steps, *NO_TEST, *HEAD, "SOLVER.STAGES", ["masks"])
    masks += ("MODEL.DETR.FROZEN_WEIGHTS", whole)
    with pytest.raises(CheckpointError, match="its mask head is AttentionMaskHead"):
        train(make_tiny_cfg(tmp_path / "refused", *masks))
    train(make_tiny_cfg(tmp_path / "pixel", *masks, "MODEL.DETR.RESIZE_ON_LOAD", True))
    before, after = (
        weights_of(tmp_path / "attention", "masks"),
        weights_of(tmp_path / "pixel", "masks"),
    )
    of_detector = [name for name in before if name.startswith("detector.")]
    assert all(torch.equal(before[name], after[name]) for name in of_detector)


def test_it_trains_with_the_detector(make_tiny_cfg, tmp_path):
    train(make_tiny_cfg(tmp_path, *HEAD, *NO_TEST, "SOLVER.STAGES", ["joint"]))
    names = weights_of(tmp_path, "joint")
    assert {name.split(".")[0] for name in names} == {"detector", "mask_head"}

"""The plain path and our model, written independently of each other, give the same pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from benchmarks.agreement import Picture, equal_ids
from benchmarks.inference import class_logits
from benchmarks.subjects import score_threshold
from benchmarks.weights import random_image
from detectron2.layers import Conv2d
from oracles.plain_panoptic import PlainPanoptic
from torch import nn

SIZES = [(96, 128), (75, 97)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kept", [1, 5, 60])
@pytest.mark.parametrize("stuff_merging", ["reference", "merged"])
def test_same_pictures(workload, size, kept, stuff_merging):
    # No segment has about as many pixels: one pixel more or less drops none.
    model = workload.load_ours(TEST__STUFF_MERGING=stuff_merging, TEST__MIN_AREA=15)
    image = random_image(size, torch.Generator().manual_seed(1))
    threshold = score_threshold(class_logits(model, image), kept)
    panoptic = replace(model.options.panoptic, score_thresh=threshold)
    model.options = replace(model.options, panoptic=panoptic)

    ids, segments_info = model([{"image": image}])[0]["panoptic_seg"]
    plain_ids, plain_info = PlainPanoptic(model)(image)
    same = equal_ids(
        Picture.from_output(ids, segments_info), Picture.from_output(plain_ids, plain_info)
    )
    assert same > 0.999  # rounding may decide between two masks at a border
    assert [s["category_id"] for s in segments_info] == [s["category_id"] for s in plain_info]
    for ours, plain in zip(segments_info, plain_info, strict=True):
        assert ours.keys() == plain.keys() | {"queries"}  # which the released code doesn't tell
        assert ours["isthing"] == plain["isthing"]
        assert ours["score"] == pytest.approx(plain["score"], rel=1e-4)
        assert ours["area"] == pytest.approx(plain["area"], abs=0.001 * ids.numel())
    assert plain_ids.dtype == ids.dtype


def test_per_head_softmax(workload):
    model = workload.load_ours()
    joint = Picture.from_output(*PlainPanoptic(model)(workload.image()))
    model.mask_head.attention_map.softmax_over = 3
    ids, segments_info = model([{"image": workload.image()}])[0]["panoptic_seg"]
    plain = Picture.from_output(*PlainPanoptic(model)(workload.image()))
    assert equal_ids(Picture.from_output(ids, segments_info), plain) > 0.999
    assert equal_ids(joint, plain) < 0.9


def test_its_backbone_is_detectron2s_own_in_the_default_order_of_memory(workload):
    model = workload.load_ours()
    plain = PlainPanoptic(model)
    convs = [module for module in plain.backbone.modules() if isinstance(module, nn.Conv2d)]
    assert {type(conv) for conv in convs} == {Conv2d}
    assert all(conv.weight.is_contiguous() for conv in convs)
    pixels = plain.normalise(workload.image())
    for feature, ours in zip(
        plain.detect(pixels).features, model.detector.backbone(pixels).values(), strict=True
    ):
        torch.testing.assert_close(feature, ours, rtol=1e-4, atol=1e-4)


def test_nothing_kept(workload):
    model = workload.load_ours()
    panoptic = replace(model.options.panoptic, score_thresh=1.0)
    model.options = replace(model.options, panoptic=panoptic)
    ids, segments_info = PlainPanoptic(model)(workload.image())
    assert not ids.any() and segments_info == []


def merge(workload, masks: torch.Tensor, classes: list[int], stuff_merging: str) -> tuple:
    """Merges masks that are as large as the image, by hand-made logits."""
    plain = PlainPanoptic(workload.load_ours(TEST__STUFF_MERGING=stuff_merging, TEST__MIN_AREA=2))
    scores = [0.9 - 0.1 * i for i in range(len(classes))]
    ids, info = plain.merge(10.0 * masks, classes, scores, masks.shape[1:])
    return ids.tolist(), [(s["category_id"], s["area"], round(s["score"], 6)) for s in info]


@pytest.fixture
def three_columns() -> torch.Tensor:
    """Masks of the left, middle and right third; without the right one, the middle one is next."""
    masks = torch.zeros(3, 2, 9)
    masks[0, :, :3], masks[1, :, 3:6], masks[2, :, 6:] = 1.0, 1.0, 1.0
    masks[1, :, 6:] = 0.5
    return masks


THING, STUFF = 0, 100


def test_duplicates_of_stuff_are_one_segment_where_merged(workload, three_columns):
    ids, info = merge(workload, three_columns, [STUFF, THING, STUFF], "merged")
    assert ids == [[1] * 3 + [2] * 3 + [1] * 3] * 2
    assert info == [(STUFF, 12, 0.9), (THING, 6, 0.8)]


def test_pixels_of_duplicates_go_to_the_next_mask_in_the_reference(workload, three_columns):
    ids, info = merge(workload, three_columns, [STUFF, THING, STUFF], "reference")
    assert ids == [[1] * 3 + [2] * 6] * 2
    assert info == [(STUFF, 6, 0.9), (THING, 12, 0.8)]


def test_small_segments_leave_their_pixels_to_others(workload, three_columns):
    three_columns[2] = 0.0
    three_columns[2, 0, 8] = 1.0
    ids, info = merge(workload, three_columns, [THING, THING, THING], "reference")
    assert ids == [[1] * 3 + [2] * 6] * 2
    assert [area for _, area, _ in info] == [6, 12]

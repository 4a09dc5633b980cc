"""Masks held as a label map, against Detectron2's own."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import BitMasks, Instances
from detectron2.utils.visualizer import Visualizer

from detr_d2.data.segment_masks import SegmentMasks


def make_case(seed: int) -> tuple[SegmentMasks, BitMasks]:
    """Up to 9 of up to 12 labels, in any order, in a small picture that may lack some of them."""
    torch.manual_seed(seed)
    dtype, first = [(torch.uint8, 1), (torch.uint8, 244), (torch.int32, 70_000)][seed % 3]
    height, width = torch.randint(1, 13, (2,)).tolist()
    label_map = torch.randint(13, (height, width))  # 0 … 12
    labels = 1 + torch.randperm(12)[: seed % 10]
    masks = BitMasks(label_map == labels[:, None, None])
    label_map = torch.where(label_map > 0, label_map + first - 1, 0).to(dtype)
    return SegmentMasks(label_map, labels + first - 1), masks


@pytest.fixture(params=range(60))
def case(request) -> tuple[SegmentMasks, BitMasks]:
    return make_case(request.param)


@pytest.fixture
def without_stack(monkeypatch) -> None:
    """Fails a test that makes T×H×W masks."""
    monkeypatch.setattr(SegmentMasks, "tensor", property(lambda masks: pytest.fail("a stack")))


def test_all_that_bit_masks_have(case):
    ours, theirs = case
    assert isinstance(ours, BitMasks) and len(ours) == len(theirs)
    assert ours.image_size == theirs.image_size and ours.device == theirs.device
    assert ours.tensor.dtype == torch.bool and torch.equal(ours.tensor, theirs.tensor)
    assert torch.equal(ours.nonempty(), theirs.nonempty())
    assert torch.equal(ours.area(), theirs.tensor.sum((1, 2)))
    boxes, expected = ours.get_bounding_boxes().tensor, theirs.get_bounding_boxes().tensor
    assert boxes.dtype == expected.dtype and torch.equal(boxes, expected)
    assert all(torch.equal(mask, other) for mask, other in zip(ours, theirs, strict=True))


def test_selections_are_those_of_bit_masks_and_share_the_map(case):
    ours, theirs = case
    count = len(ours)
    selections = [slice(1, 4), slice(None, None, 2), torch.rand(count) > 0.5]
    selections += [torch.randperm(count)[:3], list(range(count))[::-1]]
    if count:
        selections += [0, -1, torch.randint(count, (12,))]
    for selection in selections:
        chosen = ours[selection]
        assert torch.equal(chosen.tensor, theirs[selection].tensor)
        assert chosen.label_map is ours.label_map


def test_masks_are_written_into_a_larger_picture(case):
    ours, theirs = case
    height, width = ours.image_size
    padded = torch.rand(len(ours), height + 2, width + 3) > 0.5
    expected = padded.clone()
    expected[:, :height, :width] = theirs.tensor
    ours.write_to(padded)
    assert torch.equal(padded, expected)


def test_fields_of_instances(case):
    ours, theirs = case
    instances = Instances(tuple(ours.image_size), gt_masks=ours, place=torch.arange(len(ours)))
    chosen = instances[ours.nonempty()].to("cpu")
    assert torch.equal(chosen.gt_masks.tensor, theirs.tensor[chosen.place])
    both = Instances.cat([chosen, instances])
    assert torch.equal(both.gt_masks.tensor, theirs.tensor[both.place])


def test_nothing_but_the_stack_makes_a_stack(without_stack):
    masks, _ = make_case(9)
    instances = Instances(tuple(masks.image_size), gt_masks=masks)
    assert "SegmentMasks(num_instances=9)" in str(instances)
    chosen = copy.deepcopy(instances.to("cpu")[masks.nonempty()][1:]).gt_masks
    assert len(chosen.get_bounding_boxes()) == len(chosen.area()) == len(chosen)


def test_as_many_bytes_as_the_picture_has_pixels():
    labels = torch.arange(1, 61)
    masks = SegmentMasks(torch.randint(61, (100, 150)).byte(), labels)
    sent = pickle.dumps(masks)
    assert len(sent) < 100 * 150 + 2000
    assert torch.equal(pickle.loads(sent).tensor, masks.tensor)


def test_a_move_takes_map_and_labels_along():
    ours, _ = make_case(5)
    moved = ours.to("meta")
    assert moved.device.type == moved.labels.device.type == moved.tensor.device.type == "meta"
    assert moved.tensor.shape == ours.tensor.shape
    assert Instances((1, 1), gt_masks=ours).to(torch.device("meta")).gt_masks.device.type == "meta"


def test_more_segments_than_a_byte_can_number():
    label_map = torch.arange(1, 601, dtype=torch.int32).reshape(20, 30)
    masks = SegmentMasks(label_map, label_map.flatten())
    assert masks.area().tolist() == [1] * 600
    x, y = torch.arange(600) % 30, torch.arange(600) // 30
    expected = torch.stack([x, y, x + 1, y + 1], dim=1)
    assert torch.equal(masks.get_bounding_boxes().tensor, expected.float())


def test_the_visualizer_draws_them():
    label_map = torch.zeros(40, 50, dtype=torch.uint8)
    label_map[5:30, 10:20], label_map[5:30, 20:40] = 1, 2
    masks = SegmentMasks(label_map, torch.tensor([1, 2]))
    pictures = []
    for drawn in (masks, BitMasks(masks.tensor)):
        visualizer = Visualizer(torch.zeros(40, 50, 3).numpy(), MetadataCatalog.get("__unused"))
        colors = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]
        pictures.append(visualizer.overlay_instances(masks=drawn, assigned_colors=colors))
    ours, theirs = (picture.get_image() for picture in pictures)
    assert ours.any() and (ours == theirs).all()

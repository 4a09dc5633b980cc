"""Targets out of Detectron2's instances."""

from __future__ import annotations

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from detr_d2.data.segment_masks import SegmentMasks
from detr_d2.modeling.targets import Target


def make_instances(num_targets: int) -> Instances:
    instances = Instances((50, 200))
    instances.gt_boxes = Boxes(torch.tensor([[20.0, 10.0, 60.0, 50.0]]).repeat(num_targets, 1))
    instances.gt_classes = torch.full((num_targets,), 4)
    instances.gt_masks = BitMasks(torch.ones(num_targets, 50, 200, dtype=torch.bool))
    return instances


def test_boxes_are_relative_to_the_image():
    target = Target.from_instances(make_instances(1), with_masks=True)
    expected = torch.tensor([[0.2, 0.6, 0.2, 0.8]])  # cx, cy, w, h in shares of 200 × 50
    torch.testing.assert_close(target.boxes_cxcywh, expected, rtol=0, atol=1e-6)
    assert target.classes.tolist() == [4]
    assert target.masks.shape == (1, 50, 200)
    assert len(target) == 1


def test_masks_are_left_out_where_they_are_not_trained():
    instances = make_instances(2)
    instances.remove("gt_masks")
    assert Target.from_instances(instances, with_masks=False).masks is None


def test_no_instances_are_no_targets():
    target = Target.from_instances(make_instances(0), with_masks=True)
    assert len(target) == 0
    assert target.boxes_cxcywh.shape == (0, 4)
    assert target.masks.shape == (0, 50, 200)


def test_a_label_map_stays_one():
    instances = make_instances(2)
    masks = SegmentMasks(torch.zeros(50, 200, dtype=torch.uint8), torch.tensor([1, 2]))
    instances.gt_masks = masks
    assert Target.from_instances(instances, with_masks=True).masks is masks
    assert Target.from_instances(instances, with_masks=False).masks is None


@pytest.mark.parametrize("index", [[], [2], [1, 2, 0], [0, 1, 2, 1]])
def test_masks_of_chosen_targets_are_written_into_the_padded_image(index):
    label_map = torch.randint(4, (5, 7), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([3, 1, 2])
    stack = label_map == labels[:, None, None]
    index = torch.tensor(index, dtype=torch.int64)
    for masks in (stack, SegmentMasks(label_map.byte(), labels)):
        target = Target(torch.zeros(3, dtype=torch.int64), torch.zeros(3, 4), masks)
        padded = torch.rand(len(index), 6, 9) > 0.5
        expected = padded.clone()
        expected[:, :5, :7] = stack[index]
        target.write_masks_to(padded, index)
        assert torch.equal(padded, expected)

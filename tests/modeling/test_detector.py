"""The detector's own parts: padding on the feature grid, and what is computed from which layer."""

from __future__ import annotations

import pytest
import torch
from detectron2.structures import ImageList

from detr_d2.modeling.detector import BoxHead, pixel_padding_mask, to_grid


def images_of(*sizes: tuple[int, int]) -> ImageList:
    return ImageList.from_tensors([torch.ones(3, *size) for size in sizes])


@pytest.mark.parametrize("grid", [(4, 5), (7, 9), (13, 3), (100, 130)])
def test_padding_on_the_grid_is_that_of_the_nearest_pixel(grid):
    sizes = (100, 83), (61, 130), (97, 127)
    mask = to_grid(pixel_padding_mask(images_of(*sizes)), grid)
    assert mask.shape == (3, *grid)
    assert mask.dtype == torch.bool
    for image_mask, (height, width) in zip(mask, sizes, strict=True):
        for row in range(grid[0]):
            for column in range(grid[1]):
                pixel = row * 100 // grid[0], column * 130 // grid[1]
                outside = pixel[0] >= height or pixel[1] >= width
                assert image_mask[row, column] == outside


def test_padding_is_not_what_rounding_up_makes_of_it():
    """As the reference's wrapper for Detectron2 did, at the price of a row or column."""
    mask = to_grid(pixel_padding_mask(images_of((873, 1060), (640, 820))), (28, 34))
    rows, columns = (~mask[1]).sum(0).max().item(), (~mask[1]).sum(1).max().item()
    assert (rows, columns) == (21, 27)
    assert (-(-640 // 32), -(-820 // 32)) == (20, 26)


def test_only_batches_of_several_sizes_are_padded():
    assert pixel_padding_mask(images_of((20, 30))) is None
    assert pixel_padding_mask(images_of((20, 30), (20, 30))) is None
    assert pixel_padding_mask(images_of((20, 30), (20, 29))).sum((1, 2)).tolist() == [0, 20]
    divisible = ImageList.from_tensors([torch.ones(3, 20, 30)], size_divisibility=32)
    assert pixel_padding_mask(divisible).sum() == 32 * 32 - 20 * 30


@pytest.mark.parametrize(
    ("sizes", "padded"), [([(40, 50)] * 2, False), ([(40, 50), (40, 40)], True)]
)
@torch.no_grad()
def test_padding_mask_is_given_only_where_there_is_padding(tiny_model, make_batch, sizes, padded):
    model = tiny_model().eval()
    detected = model.detector(model.preprocess(make_batch(*sizes)))
    assert (detected.padding_mask is not None) == padded
    if padded:
        assert detected.padding_mask.shape == (2, *detected.memory.shape[-2:])


@pytest.mark.parametrize("sizes", [[(40, 50)] * 2, [(40, 50), (40, 40)]])
@torch.no_grad()
def test_parts_of_one_image_are_those_of_the_batch(tiny_model, make_batch, sizes):
    model = tiny_model().eval()
    detected = model.detector(model.preprocess(make_batch(*sizes)), all_layers=True)
    for i in range(2):
        part = detected.of_image(i)
        for name in ("projected", "memory"):
            assert torch.equal(getattr(part, name), getattr(detected, name)[i, None])
        for name in ("hidden", "logits", "boxes_cxcywh"):
            assert torch.equal(getattr(part, name), getattr(detected, name)[:, i, None])
        for ours, whole in zip(part.features, detected.features, strict=True):
            assert torch.equal(ours, whole[i, None])
        assert (part.padding_mask is None) == (detected.padding_mask is None)
        if part.padding_mask is not None:
            assert torch.equal(part.padding_mask, detected.padding_mask[i, None])


@torch.no_grad()
def test_predictions_are_the_last_decoder_layers(tiny_model, make_batch):
    model, batch = tiny_model().eval(), make_batch((40, 50))
    images = model.preprocess(batch)
    one, all_layers = model.detector(images), model.detector(images, all_layers=True)
    assert len(one.logits) == len(one.boxes_cxcywh) == 1
    assert len(all_layers.logits) == len(all_layers.boxes_cxcywh) == 2
    torch.testing.assert_close(one.logits[-1], all_layers.logits[-1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        one.boxes_cxcywh[-1], all_layers.boxes_cxcywh[-1], rtol=1e-5, atol=1e-6
    )
    expected = all_layers.logits[-1, 0].softmax(-1)[:, :-1].amax(-1)
    scores = model(batch)[0]["instances"].scores
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-6)


def test_box_head_is_three_layers():
    torch.manual_seed(0)
    head, x = BoxHead(16), torch.randn(2, 5, 16)
    first, second, third = head.layers
    expected = third(second(first(x).relu()).relu())
    torch.testing.assert_close(head(x), expected)
    assert expected.shape == (2, 5, 4)

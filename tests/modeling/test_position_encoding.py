"""Position encodings against their definitions, written as loops."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.structures import ImageList

from detr_d2.modeling.detector import Detector
from detr_d2.modeling.position_encoding import (
    LearnedPositionEncoding,
    SinePositionEncoding,
    build_position_encoding,
)

D = 16


def padded_grids() -> torch.Tensor:
    """B×h×w: no padding; padding right; padding right and bottom; one valid point."""
    mask = torch.zeros(4, 5, 7, dtype=torch.bool)
    mask[1, :, 4:] = True
    mask[2, 3:] = True
    mask[2, :, 6:] = True
    mask[3] = True
    mask[3, 0, 0] = False
    return mask


def slow_sine(padding_mask: torch.Tensor, d: int, temperature: float) -> torch.Tensor:
    """Sines and cosines of the share of valid points passed, one number at a time."""
    batch, height, width = padding_mask.shape
    valid = (~padding_mask).int().tolist()
    result = torch.zeros(batch, d, height, width, dtype=torch.float64)
    for b in range(batch):
        for row in range(height):
            for column in range(width):
                above = [valid[b][r][column] for r in range(height)]
                left = valid[b][row]
                y = sum(above[: row + 1]) / (sum(above) + 1e-6) * 2 * math.pi
                x = sum(left[: column + 1]) / (sum(left) + 1e-6) * 2 * math.pi
                for half, position in enumerate((y, x)):
                    for k in range(d // 2):
                        angle = position / temperature ** (2 * (k // 2) / (d // 2))
                        wave = math.sin(angle) if k % 2 == 0 else math.cos(angle)
                        result[b, half * d // 2 + k, row, column] = wave
    return result


@pytest.mark.parametrize("temperature", [10000, 20])
def test_sine_equals_its_definition(temperature):
    mask = padded_grids()
    actual = build_position_encoding("sine", D, temperature)(mask)
    assert actual.shape == (4, D, 5, 7)
    # Single precision of angles up to 2π.
    expected = slow_sine(mask, D, temperature)
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=2e-6)


def test_temperature_is_the_papers_unless_told(tiny_model):
    mask, built = padded_grids(), tiny_model().detector.position_encoding
    assert torch.equal(built(mask), SinePositionEncoding(32, 10000)(mask))


def test_sine_of_the_valid_part_does_not_know_the_padding():
    encode = SinePositionEncoding(D, 10000)
    padded = encode(padded_grids())[2, :, :3, :6]
    alone = encode(torch.zeros(1, 3, 6, dtype=torch.bool))[0]
    # The same angles; a sine may be rounded otherwise elsewhere in a vector of another length.
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["sine", "learned"])
def test_encodings_are_float32_under_autocast(kind):
    encode, mask = build_position_encoding(kind, D, 10000), padded_grids()
    expected = encode(mask)
    with torch.autocast("cpu", torch.bfloat16):
        actual = encode(mask)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, expected)


def test_learned_is_column_then_row():
    torch.manual_seed(0)
    encode = LearnedPositionEncoding(D)
    actual = encode(padded_grids())
    assert actual.shape == (4, D, 5, 7)
    for row in range(5):
        for column in range(7):
            expected = torch.cat([encode.col_embed.weight[column], encode.row_embed.weight[row]])
            assert torch.equal(actual[2, :, row, column], expected)


def test_learned_gets_gradients_only_where_used():
    encode = LearnedPositionEncoding(D)
    encode(torch.zeros(2, 3, 4, dtype=torch.bool)).sum().backward()
    # Each row is in 2 images × 4 columns, each column in 2 × 3 points.
    assert (encode.row_embed.weight.grad[:3] == 8).all()
    assert (encode.col_embed.weight.grad[:4] == 6).all()
    assert not encode.row_embed.weight.grad[3:].any()
    assert not encode.col_embed.weight.grad[4:].any()


@pytest.mark.parametrize("grid", [(51, 3), (3, 51)])
def test_learned_refuses_grids_larger_than_trained(grid):
    encode = LearnedPositionEncoding(D)
    with pytest.raises(ValueError, match="POSITION_EMBEDDING"):
        encode(torch.zeros(1, *grid, dtype=torch.bool))
    assert encode(torch.zeros(1, 50, 50, dtype=torch.bool)).shape == (1, D, 50, 50)


@pytest.mark.parametrize(("dilation", "max_side"), [(1, 1600), (2, 800)])
def test_the_longest_side_is_that_of_the_last_image_that_works(tiny_cfg, dilation, max_side):
    tiny_cfg.merge_from_list(
        ["MODEL.DETR.POSITION_EMBEDDING", "learned", "MODEL.RESNETS.RES5_DILATION", dilation]
    )
    detector = Detector(tiny_cfg).eval()
    assert detector.max_side == max_side
    with torch.no_grad():
        for size in ((33, max_side), (max_side, 33)):
            detector(ImageList.from_tensors([torch.zeros(3, *size)]))
        with pytest.raises(ValueError, match=f"which are {max_side} pixels a side.*to {max_side}"):
            detector(ImageList.from_tensors([torch.zeros(3, 33, max_side + 1)]))
    tiny_cfg.MODEL.DETR.POSITION_EMBEDDING = "sine"
    assert Detector(tiny_cfg).max_side is None

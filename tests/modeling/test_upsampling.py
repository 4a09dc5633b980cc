"""Masks at the pixels of the output, against dense resizing by PyTorch and Pillow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from detr_d2.modeling import upsampling
from detr_d2.modeling.upsampling import ImageSizes, UpsampledMasks, nearest_pixels

sides = st.integers(1, 1400)
property_test = settings(deadline=None, max_examples=200, database=None)
# Where processors can't multiply and add in one step, PyTorch rounds positions once more; PyTorch
# 2.6 rounds them more coarsely everywhere, which moves logits of about 3 by up to 3.5e-5.
ATOL = 1e-3 if torch.backends.cpu.get_cpu_capability() == "DEFAULT" else 5e-5
SIZES = ImageSizes(padded=(20, 28), network=(17, 27), output=(40, 30))


def pil_nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.NEAREST))


def dense(logits: torch.Tensor, sizes: ImageSizes) -> torch.Tensor:
    """n×H'×W' by all steps at full size: upsample, cut off the padding, take nearest pixels."""
    height, width = sizes.network
    upsampled = F.interpolate(logits[:, None], size=sizes.padded, mode="bilinear")[:, 0]
    masks = upsampled[:, :height, :width].contiguous().numpy()
    return torch.from_numpy(np.stack([pil_nearest(mask, sizes.output) for mask in masks]))


def all_rows(masks: UpsampledMasks, sizes: ImageSizes) -> torch.Tensor:
    return torch.cat([strip for _, strip in masks.strips(torch.arange(sizes.output[0]))], dim=1)


def random_case(seed: int) -> tuple[torch.Tensor, ImageSizes]:
    """Logits of up to three masks; half of the batches are padded; outputs of any size."""
    rng = np.random.default_rng(seed)
    padded = tuple(int(side) for side in rng.integers(1, 130, 2))
    network = padded
    if rng.random() < 0.5:
        network = tuple(int(side) for side in rng.integers(1, np.array(padded) + 1))
    output = tuple(int(side) for side in rng.integers(1, 200, 2))
    grid = tuple(-(-side // 4) for side in padded)
    logits = torch.from_numpy(rng.normal(0, 3, (int(rng.integers(1, 4)), *grid))).float()
    return logits, ImageSizes(padded, network, network if rng.random() < 0.3 else output)


def slow_upsample(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """One h×w map to H×W, bilinearly: pixel centres to pixel centres, borders repeated."""

    def neighbours(i: int, new: int, old: int):
        place = max((i + 0.5) * old / new - 0.5, 0)
        low = math.floor(place)
        return low, min(low + 1, old - 1), place - low

    result = np.zeros(size)
    for row in range(size[0]):
        top, bottom, down = neighbours(row, size[0], logits.shape[0])
        for column in range(size[1]):
            left, right, along = neighbours(column, size[1], logits.shape[1])
            above = logits[top, left] * (1 - along) + logits[top, right] * along
            below = logits[bottom, left] * (1 - along) + logits[bottom, right] * along
            result[row, column] = above * (1 - down) + below * down
    return result


@property_test
@given(sides, sides)
@example(800, 427)
def test_nearest_pixels_are_pils(old, new):
    """Also where a centre falls between two pixels, and Pillow's rounded steps decide."""
    values = np.arange(old, dtype=np.int32)
    pixels = nearest_pixels(old, new)
    assert pixels.dtype == torch.int64
    assert np.array_equal(pixels.numpy(), pil_nearest(values[None], (1, new))[0])
    assert np.array_equal(pixels.numpy(), pil_nearest(values[:, None], (new, 1))[:, 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
@pytest.mark.parametrize("size", [(3, 10), (21, 5), (7, 9), (1, 1)])
def test_nearest_pixels_of_both_axes_are_pils(dtype, size):
    values = np.random.default_rng(0).integers(0, 99, (7, 9)).astype(dtype)
    rows, columns = (nearest_pixels(*pair).numpy() for pair in zip((7, 9), size, strict=True))
    assert np.array_equal(values[rows[:, None], columns], pil_nearest(values, size))


def test_equals_a_slow_one_and_cuts_off_the_padding():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 7)
    sizes = ImageSizes(padded=(20, 27), network=(17, 27), output=(17, 27))
    upsampled = all_rows(UpsampledMasks(logits, sizes), sizes)
    assert upsampled.shape == (2, 17, 27)
    for actual, mask in zip(upsampled, logits, strict=True):
        expected = slow_upsample(mask.double().numpy(), (20, 27))[:17]
        np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=1e-5)


def test_equals_dense_resizing_at_random_sizes():
    seen = dict.fromkeys(["padded", "unpadded", "larger", "smaller", "as it is"], 0)
    for seed in range(150):
        logits, sizes = random_case(seed)
        actual = all_rows(UpsampledMasks(logits, sizes), sizes)
        torch.testing.assert_close(actual, dense(logits, sizes), rtol=0, atol=ATOL)
        seen["padded"] += sizes.padded != sizes.network
        seen["unpadded"] += sizes.padded == sizes.network
        seen["larger"] += sizes.output[0] > sizes.network[0]
        seen["smaller"] += sizes.output[0] < sizes.network[0]
        seen["as it is"] += sizes.output == sizes.network
    assert min(seen.values()) >= 10, seen


@pytest.mark.parametrize(
    ("padded", "network", "output"),
    [
        ((800, 1066), (800, 1066), (480, 640)),  # 267 → 1066 is not four times
        ((801, 1201), (750, 1199), (750, 1199)),
        ((873, 1060), (640, 820), (427, 547)),
        ((608, 333), (601, 333), (1210, 670)),
    ],
)
def test_equals_dense_resizing_at_full_size(padded, network, output):
    torch.manual_seed(0)
    sizes = ImageSizes(padded, network, output)
    logits = torch.randn(2, *(-(-side // 4) for side in padded))
    actual = all_rows(UpsampledMasks(logits, sizes), sizes)
    torch.testing.assert_close(actual, dense(logits, sizes), rtol=0, atol=ATOL)


@pytest.mark.parametrize("grid", [(1, 1), (1, 3), (3, 1)])
@pytest.mark.parametrize("output", [(1, 1), (1, 9), (9, 1)])
def test_axes_of_one_pixel(grid, output):
    torch.manual_seed(0)
    logits, padded = torch.randn(2, *grid), (grid[0] * 4 - 3, grid[1] * 4 - 3)
    sizes = ImageSizes(padded, padded, output)
    actual = all_rows(UpsampledMasks(logits, sizes), sizes)
    torch.testing.assert_close(actual, dense(logits, sizes), rtol=0, atol=ATOL)


@pytest.mark.parametrize(
    ("logits_at_once", "rows_at_once"), [(1, 1), (89, 1), (90, 1), (271, 3), (10**6, 40)]
)
def test_strips_hold_no_more_logits_than_the_bound_or_one_row(
    monkeypatch, logits_at_once, rows_at_once
):
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 7)
    monkeypatch.setattr(upsampling, "LOGITS_AT_ONCE", logits_at_once)
    masks = UpsampledMasks(logits, SIZES)
    rows, strips = zip(*masks.strips(torch.arange(40)), strict=True)
    assert torch.equal(torch.cat(rows), torch.arange(40))
    assert [len(some) for some in rows] == [strip.shape[1] for strip in strips]
    assert {len(some) for some in rows[:-1]} <= {rows_at_once}
    assert len(rows[-1]) <= rows_at_once
    expected = dense(logits, SIZES)
    torch.testing.assert_close(torch.cat(strips, dim=1), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", [[5], [39, 0, 7], [3, 3], []])
def test_only_the_rows_asked_for_are_computed(record_operations, rows):
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 7)
    masks = UpsampledMasks(logits, SIZES)
    with record_operations() as operations:
        ((some, strip),) = masks.strips(torch.tensor(rows, dtype=torch.int64))
    assert some.tolist() == rows
    torch.testing.assert_close(strip, dense(logits, SIZES)[:, rows], rtol=0, atol=1e-5)
    largest = max(len(rows), 1) * 3 * 30
    assert operations.largest() <= largest


def test_nothing_is_held_at_full_size(record_operations):
    """What is kept between strips has the output's columns, and the logits' rows."""
    with record_operations() as operations:
        UpsampledMasks(torch.randn(3, 5, 7), SIZES)
    assert operations.largest() == 3 * 5 * 30


@pytest.mark.parametrize("chosen", [[2, 0], [1], [], [0, 0]])
def test_select_is_as_if_only_these_were_given(chosen):
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 7)
    masks = UpsampledMasks(logits, SIZES)
    before = all_rows(masks, SIZES)
    selected = masks.select(torch.tensor(chosen, dtype=torch.int64))
    assert torch.equal(all_rows(selected, SIZES), before[chosen])
    assert torch.equal(all_rows(masks, SIZES), before)


def test_no_masks_have_strips_of_the_right_shape():
    masks = UpsampledMasks(torch.zeros(0, 5, 7), SIZES)
    assert all_rows(masks, SIZES).shape == (0, 40, 30)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_computes_in_single_precision(dtype):
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 7).to(dtype)
    actual = all_rows(UpsampledMasks(logits, SIZES), SIZES)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, all_rows(UpsampledMasks(logits.float(), SIZES), SIZES))


@pytest.mark.parametrize("output", [(40, 30), (5, 7)], ids=["larger", "as many pixels as logits"])
def test_nothing_given_is_changed(output):
    torch.manual_seed(0)
    sizes = ImageSizes(padded=(20, 28), network=(20, 28), output=output)
    logits, rows = torch.randn(2, 5, 7), torch.arange(5)
    before = logits.clone()
    masks = UpsampledMasks(logits, sizes)
    first, second = (torch.cat([strip for _, strip in masks.strips(rows)], 1) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(logits, before)
    assert torch.equal(rows, torch.arange(5))

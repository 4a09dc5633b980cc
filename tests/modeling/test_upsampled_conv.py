"""The convolution of a doubled map, against doubling and convolving; and the work it saves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from detr_d2.modeling.upsampled_conv import conv3x3_upsampled

N, C_IN, C_OUT = 2, 6, 4
# Small grids and what they come to.
DOUBLED = [
    ((4, 5), (8, 10)),
    ((1, 1), (2, 2)),
    ((1, 4), (2, 8)),
    ((4, 1), (8, 2)),
    ((2, 2), (4, 4)),
]
ODD = [
    ((4, 5), (7, 9)),
    ((4, 5), (7, 10)),
    ((4, 5), (8, 9)),
    ((2, 2), (3, 3)),
    ((1, 1), (1, 1)),
    ((1, 1), (1, 2)),
    ((1, 1), (2, 1)),
    ((1, 4), (1, 7)),
    ((4, 1), (7, 1)),
    ((1, 4), (2, 7)),
    ((4, 1), (7, 2)),
]
# The same grid (a dilated res5 has that of res4), and sizes that no strided convolution makes.
OTHER = [
    ((4, 5), (4, 5)),
    ((4, 5), (6, 10)),
    ((4, 5), (8, 8)),
    ((4, 5), (8, 7)),
    ((4, 5), (12, 11)),
    ((4, 5), (3, 10)),
    ((3, 1), (9, 1)),
]
ALL = pytest.mark.parametrize(("small", "size"), DOUBLED + ODD + OTHER)
BOTH_FORMATS = pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last], ids=["planes", "channels last"]
)


def inputs(small: tuple[int, int], memory_format=torch.contiguous_format):
    """In double precision, of which gradients are wanted."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(N, C_IN, *small, generator=rng, dtype=torch.float64)
    weight = torch.randn(C_OUT, C_IN, 3, 3, generator=rng, dtype=torch.float64)
    x, weight = (t.to(memory_format=memory_format) for t in (x, weight))
    return x.requires_grad_(), weight.requires_grad_()


def slow(x: torch.Tensor, weight: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.conv2d(F.interpolate(x, size=size, mode="nearest"), weight, padding=1)


@ALL
@BOTH_FORMATS
def test_equals_doubling_and_convolving(small, size, memory_format):
    x, weight = inputs(small, memory_format)
    actual = conv3x3_upsampled(x, weight, size)
    assert actual.shape == (N, C_OUT, *size)
    torch.testing.assert_close(actual, slow(x, weight, size), rtol=0, atol=1e-12)


@ALL
@BOTH_FORMATS
def test_gradients_equal_those_of_doubling_and_convolving(small, size, memory_format):
    x, weight = inputs(small, memory_format)
    rng = torch.Generator().manual_seed(1)
    upstream = torch.randn(N, C_OUT, *size, generator=rng, dtype=torch.float64)
    expected = torch.autograd.grad(slow(x, weight, size), (x, weight), upstream)
    actual = torch.autograd.grad(conv3x3_upsampled(x, weight, size), (x, weight), upstream)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("size", [(8, 10), (7, 9), (4, 5), (12, 11)])
def test_no_maps_make_no_maps(size):
    x, weight = inputs((4, 5))
    nothing = conv3x3_upsampled(x[:0], weight, size)
    assert nothing.shape == (0, C_OUT, *size)
    nothing.sum().backward()
    assert x.grad.shape == x.shape and not x.grad.any()
    assert weight.grad.shape == weight.shape and not weight.grad.any()


@ALL
def test_nothing_given_is_changed(small, size):
    x, weight = inputs(small)
    before = x.detach().clone(), weight.detach().clone()
    with torch.no_grad():
        conv3x3_upsampled(x, weight, size)
    assert torch.equal(x, before[0])
    assert torch.equal(weight, before[1])


def multiplications(function, small: tuple[int, int], size: tuple[int, int]) -> int:
    x, weight = inputs(small)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(x, weight, size)
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("small", "size"), [((4, 5), (8, 10)), ((1, 1), (2, 2)), ((6, 9), (12, 18))]
)
def test_four_ninths_of_the_multiplications(small, size):
    assert (
        multiplications(conv3x3_upsampled, small, size) * 9
        == multiplications(slow, small, size) * 4
    )


@pytest.mark.parametrize("size", [(55, 66), (56, 65), (55, 65)])
def test_odd_sides_cost_their_border_more(size):
    """A border is made of two rows, or columns, of each odd side; a row and column are cut off."""
    height, width = size
    each = 2 * 9 * N * C_IN * C_OUT
    doubled = multiplications(conv3x3_upsampled, (28, 33), (56, 66))
    borders = each * 2 * (width * (height % 2) + height * (width % 2))
    assert multiplications(conv3x3_upsampled, (28, 33), size) == doubled + borders
    assert doubled + borders < 0.6 * multiplications(slow, (28, 33), size)


@pytest.mark.parametrize(("small", "size"), [((4, 5), (4, 5)), ((4, 5), (12, 11))])
def test_other_sizes_cost_what_they_did(small, size):
    assert multiplications(conv3x3_upsampled, small, size) == multiplications(slow, small, size)


@pytest.mark.parametrize("size", [(24, 30), (23, 30), (24, 29), (23, 29)])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward too"])
def test_the_doubled_map_is_never_made(record_operations, size, backward):
    x, weight = inputs((12, 15))
    sizes = {}
    for function in (conv3x3_upsampled, slow):
        with record_operations() as operations:
            y = function(x, weight, size)
            if backward:
                y.sum().backward()
        sizes[function] = operations.largest()
    doubled = N * C_IN * size[0] * size[1]
    # The result before its last row and column are cut off, but nothing of the input's channels.
    assert sizes == {conv3x3_upsampled: N * C_OUT * 24 * 30, slow: doubled}
    assert sizes[conv3x3_upsampled] < doubled


def test_nothing_is_copied_where_the_size_is_right_already(record_operations):
    x, weight = inputs((4, 5))
    with record_operations() as operations, torch.no_grad():
        conv3x3_upsampled(x, weight, (4, 5))
    assert operations.names() == ["convolution"]


def test_kernels_are_made_for_the_weights_of_the_call():
    x, weight = inputs((4, 5))
    with torch.no_grad():
        first = conv3x3_upsampled(x, weight, (8, 10))
        weight.data.mul_(2)
        torch.testing.assert_close(conv3x3_upsampled(x, weight, (8, 10)), first * 2)

"""A 3×3 convolution of a map that was doubled by repeating its pixels, without doubling it.

Axes: N maps, C and C' channels, h×w the small grid, H×W the doubled one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def conv3x3_upsampled(x: torch.Tensor, weight: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """``F.conv2d(F.interpolate(x, size, mode="nearest"), weight, padding=1)``, up to rounding.

    Where nearest upsampling doubles the grid, each output pixel's nine taps see four different
    pixels: the two steps are one transposed convolution of stride 2, whose 4×4 kernel holds sums of
    the taps. That takes 4/9 of the multiplications, and no map of C×H×W. Strided convolutions
    halve odd sides upwards, so 2h - 1 rows come back to h, of which the last is repeated once.

    Args:
        x: N×C×h×w.
        weight: C'×C×3×3.
        size: (H, W). Other sizes than 2h or 2h - 1 by 2w or 2w - 1 work and save nothing.

    Returns:
        N×C'×H×W.
    """
    height, width = size
    if not all(2 * old - new in (0, 1) for old, new in zip(x.shape[-2:], size, strict=True)):
        upsampled = x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="nearest")
        return F.conv2d(upsampled, weight, padding=1)
    y = F.conv_transpose2d(x, doubling_kernel(weight), stride=2, padding=1)[..., :height, :width]
    # The padding's zeros begin a pixel earlier at odd sides: their border is made anew.
    if height % 2:
        last_rows = F.interpolate(x[..., -2:, :], scale_factor=2.0)[..., -3:-1, :width]
        y[..., -1, :] = F.conv2d(last_rows, weight, padding=1)[..., -1, :]
    if width % 2:
        last_columns = F.interpolate(x[..., -2:], scale_factor=2.0)[..., :height, -3:-1]
        y[..., -1] = F.conv2d(last_columns, weight, padding=1)[..., -1]
    return y


def doubling_kernel(weight: torch.Tensor) -> torch.Tensor:
    """C'×C×3×3 to C×C'×4×4, the transposed convolution that upsamples and convolves."""
    kernel = weight.flip(2, 3).transpose(0, 1)
    kernel = F.pad(kernel, (0, 0, 0, 1)) + F.pad(kernel, (0, 0, 1, 0))
    return F.pad(kernel, (0, 1)) + F.pad(kernel, (1, 0))

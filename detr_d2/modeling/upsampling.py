"""Masks at the pixels of the output, computed only where they are wanted.

Axes: n masks; h×w their logits (stride 4), H×W the network's input without padding, H'×W' the
output.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class ImageSizes:
    """The sizes (height, width) that one image goes through.

    Attributes:
        padded: the batch as the network sees it.
        network: the image within it.
        output: what was asked for.
    """

    padded: tuple[int, int]
    network: tuple[int, int]
    output: tuple[int, int]


# Logits at full size that are there at a time: few enough for a processor's cache, and enough for
# the launch of the work to cost nothing beside it.
LOGITS_AT_ONCE = 2**20


class UpsampledMasks:
    """Mask logits of one image at the pixels of its output.

    As in the reference, masks are upsampled bilinearly to the padded batch, the padding is cut off,
    and the output takes its nearest pixels from that. Of these steps only what the output takes is
    computed, a strip of rows at a time: n×H'×W' logits are never there at once.
    """

    def __init__(self, mask_logits: torch.Tensor, sizes: ImageSizes) -> None:
        """Takes n×h×w logits of the padded batch."""
        logits = mask_logits.float()
        (height, width), device = logits.shape[1:], logits.device
        self._rows = _Samples.of_axis(0, height, sizes).to(device)
        self._logits = _Samples.of_axis(1, width, sizes).to(device).interpolate(logits, 2)  # n×h×W'

    def strips(self, rows: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Goes through rows of the output, given by their int64 indices.

        Gives:
            (r of the indices, n×r×W' logits).
        """
        masks, _, width = self._logits.shape
        for some in rows.split(max(1, LOGITS_AT_ONCE // max(1, masks * width))):
            yield some, self._rows.at(some).interpolate(self._logits, 1)

    def select(self, masks: torch.Tensor) -> UpsampledMasks:
        """Some of the masks, given by their int64 indices."""
        selected = object.__new__(UpsampledMasks)
        selected._rows, selected._logits = self._rows, self._logits[masks]
        return selected


@dataclass(frozen=True)
class _Samples:
    """Where the pixels of the output lie among those of the logits, on one axis.

    Attributes:
        first: int64, the neighbour before each pixel.
        second: int64, the one after it.
        weight: float32 in [0, 1], that of the second.
    """

    first: torch.Tensor
    second: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def of_axis(cls, axis: int, size: int, sizes: ImageSizes) -> _Samples:
        """Rounds positions as torch's bilinear interpolation does: once, after all is computed."""
        pixel = nearest_pixels(sizes.network[axis], sizes.output[axis]).double()
        scale = torch.tensor(size, dtype=torch.float32) / sizes.padded[axis]
        position = (scale.double() * (pixel + 0.5) - 0.5).float().clamp(min=0)
        first = position.long().clamp(max=size - 1)
        return cls(first, (first + 1).clamp(max=size - 1), (position - first).clamp(0, 1))

    def to(self, device: torch.device) -> _Samples:
        return _Samples(*(values.to(device) for values in vars(self).values()))

    def at(self, pixels: torch.Tensor) -> _Samples:
        """Those of some pixels of the output."""
        return _Samples(*(values[pixels] for values in vars(self).values()))

    def interpolate(self, logits: torch.Tensor, axis: int) -> torch.Tensor:
        """Takes the samples on one axis, which then has the pixels of the output."""
        weight = self.weight.view([-1] + [1] * (logits.dim() - 1 - axis))
        before, after = (logits.index_select(axis, i) for i in (self.first, self.second))
        return before.lerp_(after, weight)


def nearest_pixels(old: int, new: int) -> torch.Tensor:
    """For each of ``new`` pixels the one of ``old`` under its centre: int64.

    Bit for bit what Pillow's nearest resize takes, by which the reference resizes segment ids:
    Pillow adds up steps, whose rounding decides where a centre falls between two pixels.
    """
    if new == old:
        return torch.arange(new)
    steps = np.full(new, old / new)
    steps[0] /= 2
    return torch.from_numpy(steps.cumsum().astype(np.int64))

"""Upsamples masks to the pixels of the output, only where they are wanted.

Axes: n masks; h×w their logits (stride 4), H×W the network's input without padding, H'×W' the
output.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F


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


# Number of logits at full size that are in memory at a time: few enough for a processor's cache,
# and enough that starting the computation takes little time compared to it.
LOGITS_AT_ONCE = 2**20


class UpsampledMasks:
    """Mask logits of one image at the pixels of its output.

    As in the reference, masks are upsampled bilinearly to the padded batch, the padding is cut off,
    and the output takes its nearest pixels from that. Only logits that the output takes are
    computed, a strip of rows at a time: all n×H'×W' are never in memory at once.
    """

    def __init__(self, mask_logits: torch.Tensor, sizes: ImageSizes) -> None:
        """Takes n×h×w logits of the padded batch."""
        logits = mask_logits.float()
        height, device = logits.shape[1], logits.device
        if len(logits):
            size = (height, sizes.padded[1])
            logits = F.interpolate(logits[:, None], size=size, mode="bilinear")[:, 0]
        else:  # bilinear interpolation refuses empty batches
            logits = logits.new_zeros(0, height, sizes.padded[1])
        if not sizes.padded[1] == sizes.network[1] == sizes.output[1]:
            columns = nearest_pixels(sizes.network[1], sizes.output[1])
            logits = logits.index_select(2, columns.to(device))
        self._logits = logits  # n×h×W'
        self._rows = _Rows.of_output(height, sizes).to(device)

    def strips(self, rows: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Goes through rows of the output, given by their int64 indices.

        Gives:
            (r of the indices, n×r×W' logits).
        """
        masks, _, width = self._logits.shape
        for some in rows.split(max(1, LOGITS_AT_ONCE // max(1, masks * width))):
            above = self._logits.index_select(1, self._rows.above[some])
            below = self._logits.index_select(1, self._rows.below[some])
            yield some, above.lerp_(below, self._rows.weight[some, None])

    def select(self, masks: torch.Tensor) -> UpsampledMasks:
        """Some of the masks, given by their int64 indices."""
        selected = object.__new__(UpsampledMasks)
        selected._rows, selected._logits = self._rows, self._logits[masks]
        return selected


@dataclass(frozen=True)
class _Rows:
    """Where the rows of the output lie among those of the logits.

    Attributes:
        above: H' int64, the row of logits above each row of the output.
        below: H' int64, the row of logits below it.
        weight: H' float32 in [0, 1], the weight of the row below.
    """

    above: torch.Tensor
    below: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def of_output(cls, height: int, sizes: ImageSizes) -> _Rows:
        """Rounds positions as torch's bilinear interpolation does: once, after all is computed."""
        row = nearest_pixels(sizes.network[0], sizes.output[0]).double()
        scale = torch.tensor(height, dtype=torch.float32) / sizes.padded[0]
        position = (scale.double() * (row + 0.5) - 0.5).float()
        above = position.long().clamp(max=height - 1)
        return cls(above, (above + 1).clamp(max=height - 1), (position - above).clamp(0, 1))

    def to(self, device: torch.device) -> _Rows:
        return _Rows(*(values.to(device) for values in vars(self).values()))


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

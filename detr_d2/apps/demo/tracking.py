"""Segments tracked through a video, so that each keeps its number and its colour.

Axes: H×W a frame, h×w the coarser grid on which regions are compared, n segments of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from detr_d2.visualization import PanopticScene

# The longer side of the grid, at most.
GRID_SIZE = 320
# Least intersection over union of two regions of one segment in consecutive frames.
MIN_IOU = 0.2
# How many frames a segment may be out of sight, and how many such segments are remembered.
MAX_FRAMES_UNSEEN = 30
MAX_UNSEEN = 256


@dataclass(frozen=True)
class Region:
    """The part of the grid that a segment covers.

    Attributes:
        class_id: of the segment.
        is_thing: whether the segment is a thing.
        cells: flat indices in the grid, rising, each once.
    """

    class_id: int
    is_thing: bool
    cells: np.ndarray


def match_regions(before: Sequence[Region], now: Sequence[Region]) -> dict[int, int]:
    """Finds which regions are the same segment, by their intersection over union (IoU).

    A region has at most one partner, which has its class. The sum of all IoUs is maximal. Things
    need an IoU of ``MIN_IOU``. Stuff of one class is the same segment wherever it is, since an
    image has one segment of each stuff class.

    Args:
        before: m regions of one frame.
        now: n of another.

    Returns:
        The index in ``now`` of each region with a partner → the partner's index in ``before``.
    """
    if not before or not now:
        return {}
    quality = np.zeros((len(now), len(before)))
    for i, region in enumerate(now):
        for j, other in enumerate(before):
            if (region.class_id, region.is_thing) == (other.class_id, other.is_thing):
                iou = _iou(region.cells, other.cells)
                quality[i, j] = iou if region.is_thing else max(iou, MIN_IOU)
    quality[quality < MIN_IOU] = 0
    pairs = zip(*linear_sum_assignment(quality, maximize=True), strict=True)
    return {int(i): int(j) for i, j in pairs if quality[i, j] > 0}


def regions_of(scene: PanopticScene) -> list[Region]:
    """Returns the regions of n segments: their masks, or their boxes if there are no masks."""
    step = -(-max(scene.size) // GRID_SIZE)
    cells = _mask_cells(scene, step) if scene.places is not None else _box_cells(scene, step)
    return [
        Region(segment.class_id, segment.is_thing, some)
        for segment, some in zip(scene.segments, cells, strict=True)
    ]


class SegmentTracker:
    """Numbers the segments of a video from 1 on. Each number stands for one segment.

    The tracker remembers a bounded number of regions: those of the last frame, and ``MAX_UNSEEN``
    of the last ``MAX_FRAMES_UNSEEN`` frames, whose segments may come back to their place.
    """

    def __init__(self) -> None:
        self._frame = 0
        self._next_number = 1
        self._size: tuple[int, int] | None = None
        self._seen: dict[int, Region] = {}  # in the last frame, by number
        self._unseen: dict[int, tuple[int, Region]] = {}  # with the frame that they were last in

    def follow(self, scene: PanopticScene) -> PanopticScene:
        """Returns the next frame with the numbers of its segments as their ids."""
        self._frame += 1
        if scene.size != self._size:  # another grid, on which nothing can be compared
            self._size, self._seen, self._unseen = scene.size, {}, {}
        now = regions_of(scene)
        numbers = _partners(now, self._seen)
        left = [place for place in range(len(now)) if place not in numbers]
        returned = {number: region for number, (_, region) in self._unseen.items()}
        found = _partners([now[place] for place in left], returned)
        numbers |= {left[place]: number for place, number in found.items()}
        for place in left:
            if place not in numbers:
                numbers[place], self._next_number = self._next_number, self._next_number + 1
        self._remember({numbers[place]: region for place, region in enumerate(now)})
        return scene.numbered([numbers[place] for place in range(len(now))])

    @property
    def num_remembered(self) -> int:
        """The number of segments that can be found again."""
        return len(self._seen) + len(self._unseen)

    def _remember(self, seen: dict[int, Region]) -> None:
        lost = {n: (self._frame - 1, region) for n, region in self._seen.items() if n not in seen}
        unseen = {n: last for n, last in self._unseen.items() if n not in seen} | lost
        recent = [n for n in unseen if self._frame - unseen[n][0] <= MAX_FRAMES_UNSEEN]
        self._unseen = {n: unseen[n] for n in recent[-MAX_UNSEEN:]}
        self._seen = seen


def _partners(now: list[Region], before: dict[int, Region]) -> dict[int, int]:
    """Maps indices of the regions in ``now`` that have a partner to the partners' numbers."""
    numbers = list(before)
    return {i: numbers[j] for i, j in match_regions(list(before.values()), now).items()}


def _iou(cells: np.ndarray, others: np.ndarray) -> float:
    if not len(cells) or not len(others) or cells[-1] < others[0] or others[-1] < cells[0]:
        return 0.0
    is_in = np.zeros(max(cells[-1], others[-1]) + 1, bool)
    is_in[cells] = True
    shared = int(np.count_nonzero(is_in[others]))
    return shared / (len(cells) + len(others) - shared)


def _mask_cells(scene: PanopticScene, step: int) -> list[np.ndarray]:
    """Takes every ``step``-th pixel of every ``step``-th row.

    Segments that none of these pixels shows get all cells that they touch.
    """
    coarse = scene.places[::step, ::step]
    flat = coarse.ravel()
    order = np.argsort(flat, kind="stable")
    # The place 0 stands for pixels without a segment.
    ends = np.searchsorted(flat[order], np.arange(len(scene.segments) + 1), side="right")
    cells = [order[start:end] for start, end in zip(ends, ends[1:], strict=False)]
    for place, some in enumerate(cells, start=1):
        if not len(some):
            rows, columns = np.nonzero(scene.places == place)
            cells[place - 1] = np.unique(rows // step * coarse.shape[1] + columns // step)
    return cells


def _box_cells(scene: PanopticScene, step: int) -> list[np.ndarray]:
    height, width = (-(-length // step) for length in scene.size)
    cells = []
    for segment in scene.segments:
        left, upper, right, lower = (edge / step for edge in segment.box)
        # At least one cell, however small the box.
        rows = np.arange(int(upper), max(int(upper) + 1, int(np.ceil(lower)))).clip(0, height - 1)
        columns = np.arange(int(left), max(int(left) + 1, int(np.ceil(right)))).clip(0, width - 1)
        cells.append(np.unique(rows[:, None] * width + columns))
    return cells

"""Cuts id maps into runs of equal pixels: an image has far fewer runs than pixels.

Axes: R runs of pixels.
"""

from __future__ import annotations

import numpy as np


def find_runs(*rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts rows of pixels into runs: a new run begins where any of the rows changes its value.

    Args:
        rows: one or more 1-D arrays of the same length, which may be 0.

    Returns:
        starts: (R,) int64 index of each run's first pixel.
        lengths: (R,) int64, at least 1.
    """
    size = len(rows[0])
    is_start = np.zeros(size, dtype=bool)
    is_start[:1] = True
    for row in rows:
        is_start[1:] |= row[1:] != row[:-1]
    starts = np.flatnonzero(is_start)
    return starts, np.diff(starts, append=size)


def count_pixels(ids: np.ndarray) -> dict[int, int]:
    """The number of pixels of each id that a map of integers has."""
    values = ids.ravel()
    starts, lengths = find_runs(values)
    unique, index = np.unique(values[starts], return_inverse=True)
    areas = np.bincount(index, weights=lengths)
    return dict(zip(unique.tolist(), areas.astype(np.int64).tolist(), strict=True))

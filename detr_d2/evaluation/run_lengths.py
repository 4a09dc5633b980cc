"""Id maps as runs of equal pixels, which are few where pixels are many.

Axes: R runs of pixels.
"""

from __future__ import annotations

import numpy as np


def find_runs(*rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts rows of pixels wherever any of them changes its value.

    Args:
        rows: one or more 1-D arrays of one length, which may be 0.

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

"""The point of each segment at which its label belongs.

Axes: H×W the image, n segments.
"""

from __future__ import annotations

import numpy as np

from detr_d2.visualization.painting import outline_mask

# The longer side of the grid on which points are looked for, at most.
GRID_SIZE = 320


def inner_points(places: np.ndarray, num_segments: int) -> list[tuple[int, int] | None]:
    """Finds the point of each segment that is farthest from its edge.

    Of several such points it is the one nearest to their centre. Points are found on a coarser
    grid, and on the image for segments that have no pixel on that grid. A point is always a pixel
    of its segment.

    Args:
        places: H×W uint16, k where the k-th segment is and 0 where there is none.
        num_segments: n.

    Returns:
        n pairs of x, y; None for segments without pixels.
    """
    step = max(1, -(-max(places.shape) // GRID_SIZE))
    points = _inner_points(places[::step, ::step], step)
    if step > 1 and len(points) < num_segments:
        points = _inner_points(places, 1) | points
    return [points.get(place) for place in range(1, num_segments + 1)]


def _inner_points(places: np.ndarray, step: int) -> dict[int, tuple[int, int]]:
    """Finds the points of the segments that a grid shows, by their places."""
    # A frame of nothing makes the border of the image an edge.
    framed = np.pad(places, 1)
    distance = _steps_to(outline_mask(framed, 1))
    highest = np.zeros(int(framed.max()) + 1, distance.dtype)
    np.maximum.at(highest, framed, distance)
    rows, columns = np.nonzero((framed > 0) & (distance == highest[framed]))
    found = framed[rows, columns]
    counts = np.maximum(np.bincount(found), 1)
    middle_row, middle_column = (
        (np.bincount(found, weights) / counts)[found] for weights in (rows, columns)
    )
    order = np.lexsort((np.hypot(rows - middle_row, columns - middle_column), found))
    segments, first = np.unique(found[order], return_index=True)
    x, y = ((each[order[first]] - 1) * step for each in (columns, rows))
    return {
        place: (column, row)
        for place, column, row in zip(segments.tolist(), x.tolist(), y.tolist(), strict=True)
    }


def _steps_to(mask: np.ndarray) -> np.ndarray:
    """Counts the steps from each pixel to the nearest one of a mask, along rows and columns."""
    steps = np.where(mask, 0, sum(mask.shape)).astype(np.int32)
    for axis, length in enumerate(mask.shape):
        ramp = np.arange(length, dtype=np.int32).reshape(-1, *[1] * (mask.ndim - 1 - axis))
        ahead = np.minimum.accumulate(steps - ramp, axis) + ramp
        behind = np.flip(np.minimum.accumulate(np.flip(steps + ramp, axis), axis), axis) - ramp
        steps = np.minimum(ahead, behind)
    return steps

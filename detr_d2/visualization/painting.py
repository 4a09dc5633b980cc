"""Fills and outlines, pixel by pixel: what is painted is what the map of segments says.

Polygons, as Detectron2's visualizer has them, lose the holes of things and bleed over the edges.

Axes: H×W the image, n segments.
"""

from __future__ import annotations

import cv2
import numpy as np


def paint_segments(
    image: np.ndarray, places: np.ndarray, fills: np.ndarray, outlines: np.ndarray, opacity: float
) -> np.ndarray:
    """Tints each segment, and draws its outline inside it.

    Args:
        image: H×W×3 uint8.
        places: H×W uint16, 0 where nothing is painted.
        fills: (n+1)×3 uint8, the colour of each place.
        outlines: (n+1)×3 uint8, likewise.
        opacity: of the tints, in [0, 1].

    Returns:
        H×W×3 uint8.
    """
    painted = cv2.addWeighted(image, 1 - opacity, colored(places, fills), opacity, 0)
    cv2.copyTo(image, (places == 0).view(np.uint8), painted)
    edges = outline_mask(places, outline_width(places.shape))
    cv2.copyTo(colored(places, outlines), edges.view(np.uint8), painted)
    return painted


def colored(places: np.ndarray, table: np.ndarray) -> np.ndarray:
    """H×W places in the colours of a table, n×3 uint8."""
    if len(table) > 256:
        return table[places]
    # The fast way: OpenCV wants 256 colours.
    colors = np.zeros((256, 1, 3), np.uint8)
    colors[: len(table), 0] = table
    return cv2.applyColorMap(places.astype(np.uint8), colors)


def outline_mask(places: np.ndarray, width: int) -> np.ndarray:
    """H×W bool: pixels of a segment with another, or nothing, at most ``width`` steps away.

    Steps go up, down, left and right. The edge of the image is none of a segment.
    """
    if not places.size:
        return np.zeros(places.shape, bool)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    highest = cv2.dilate(places, cross, iterations=width)
    lowest = cv2.erode(places, cross, iterations=width)
    return (highest != lowest) & (places > 0)


def outline_width(size: tuple[int, int]) -> int:
    """In pixels, for a picture of H, W."""
    return max(1, round(min(size) / 500))


def inner_points(places: np.ndarray, num_segments: int) -> list[tuple[int, int] | None]:
    """The point of each segment that is farthest from its edge: where its name is put.

    Found on a coarser grid, with the segments that this has; a point is in its segment always.

    Args:
        places: H×W uint16.
        num_segments: n.

    Returns:
        n pairs of x, y; None for segments without pixels.
    """
    step = max(1, max(places.shape) // 320)
    points = _inner_points(places[::step, ::step], range(1, num_segments + 1), step)
    if step > 1:
        lost = [place for place in range(1, num_segments + 1) if points[place] is None]
        points |= _inner_points(places, lost, 1) if lost else {}
    return [points[place] for place in range(1, num_segments + 1)]


def _inner_points(
    places: np.ndarray, wanted: range | list[int], step: int
) -> dict[int, tuple[int, int] | None]:
    # A frame of nothing, so that the edge of the image is an edge.
    framed = cv2.copyMakeBorder(np.ascontiguousarray(places), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    inside = (~outline_mask(framed, 1)).view(np.uint8)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
    points: dict[int, tuple[int, int] | None] = {}
    for place in wanted:
        mask = (framed == place).view(np.uint8)
        x, y = cv2.minMaxLoc(distance, mask)[3]  # -1, -1 where there is no such pixel
        points[place] = ((x - 1) * step, (y - 1) * step) if mask[y, x] else None
    return points

"""Fills and outlines of segments, painted pixel by pixel with NumPy and Pillow.

The painted pixels are exactly those of the map of segments. The polygons that Detectron2's
visualizer draws lose the holes of things and cross their edges.

Axes: H×W the image, n segments.
"""

from __future__ import annotations

import numpy as np
from PIL import Image


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
    tints = Image.fromarray(colored(places, fills))
    painted = np.array(Image.blend(Image.fromarray(image), tints, opacity))
    np.copyto(painted, image, where=(places == 0)[:, :, None])
    edges = outline_mask(places, outline_width(places.shape))
    painted[edges] = outlines[places[edges]]
    return painted


def colored(places: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Returns H×W places in the colours of a table, n×3 uint8."""
    if len(table) > 256:
        return table[places]
    # A palette, which has at most 256 colours, is several times as fast.
    picture = Image.fromarray(places.astype(np.uint8))
    picture.putpalette(np.ascontiguousarray(table).tobytes())
    return np.asarray(picture.convert("RGB"))


def outline_mask(places: np.ndarray, width: int) -> np.ndarray:
    """Finds the pixels of segments that have other pixels at most ``width`` steps away.

    Steps go up, down, left and right. The border of the image is not an edge of a segment.

    Args:
        places: H×W, 0 where no segment is.
        width: in pixels, at least 1.

    Returns:
        H×W bool.
    """
    near = np.zeros(places.shape, bool)
    for one, other in _neighbours(near.ndim):
        differs = places[one] != places[other]
        near[one] |= differs
        near[other] |= differs
    for _ in range(width - 1):
        wider = near.copy()
        for one, other in _neighbours(near.ndim):
            wider[one] |= near[other]
            wider[other] |= near[one]
        near = wider
    return near & (places > 0)


def outline_width(size: tuple[int, int]) -> int:
    """Returns the width of outlines in pixels, for a picture of H, W."""
    return max(1, round(min(size) / 500))


def _neighbours(num_axes: int) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Returns two views for each axis: all pixels with a next one, and these next ones."""
    pairs = []
    for axis in range(num_axes):
        before = (slice(None),) * axis
        pairs.append(((*before, slice(None, -1)), (*before, slice(1, None))))
    return pairs

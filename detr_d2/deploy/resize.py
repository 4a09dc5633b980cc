"""Images and segment ids in other sizes, pixel for pixel as training and evaluation make them.

Axes: H×W pixels.
"""

from __future__ import annotations

import numpy as np
from PIL import Image


def network_size(height: int, width: int, min_size: int, max_size: int) -> tuple[int, int]:
    """The size at which a model sees an image: that of ``ResizeShortestEdge``.

    Args:
        height, width: of the image.
        min_size: what the shorter side becomes; 0: the image keeps its size.
        max_size: most that the longer side may become.

    Returns:
        (height, width), each at least 1.
    """
    if min_size == 0:
        return height, width
    # In the order of Detectron2's operations, whose rounding decides between two sizes.
    scale = min_size / min(height, width)
    new = (min_size, scale * width) if height < width else (scale * height, min_size)
    if max(new) > max_size:
        scale = max_size / max(new)
        new = new[0] * scale, new[1] * scale
    return max(int(new[0] + 0.5), 1), max(int(new[1] + 0.5), 1)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes H×W×3 uint8 to a (height, width), bilinearly."""
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def resize_ids(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes H×W int32 to a (height, width): each pixel takes the one under its centre."""
    return np.asarray(Image.fromarray(ids).resize(size[::-1], Image.Resampling.NEAREST))

"""Images and segment ids in other sizes, with Pillow alone.

The results equal those of Detectron2's transforms in training and evaluation, pixel for pixel.
Exported models run without Detectron2, which is why its rule of sizes is repeated here; a test
compares the two for random sizes.

Axes: H×W pixels.
"""

from __future__ import annotations

import numpy as np
from PIL import Image


def network_size(height: int, width: int, min_size: int, max_size: int) -> tuple[int, int]:
    """Returns the size at which a model sees an image: that of ``ResizeShortestEdge``.

    Args:
        height, width: of the image.
        min_size: length of the shorter side after resizing; 0 means that the image keeps its size.
        max_size: greatest length of the longer side after resizing.

    Returns:
        (height, width), each at least 1.
    """
    if min_size == 0:
        return height, width
    # The order of operations is Detectron2's: another order rounds to another size at times.
    scale = min_size / min(height, width)
    new: tuple[float, float]
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

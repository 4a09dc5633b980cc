"""Sizes of pictures for people, and several pictures in one, with NumPy and Pillow alone."""

from __future__ import annotations

import numpy as np
from PIL import Image

# Smaller images are enlarged to about this length, so that names are legible on them.
MIN_PICTURE_SIZE = 480
# Larger images shrink to this length in pictures of evaluations and reports. It is the longest that
# ``enlarge`` makes of a small image.
MAX_PICTURE_SIZE = 640
# Pixels of white between pictures.
_GAP = 8


def enlarge(image: np.ndarray) -> np.ndarray:
    """Enlarges a small H×W×3 uint8 image by a whole factor; leaves a large one as it is."""
    height, width = image.shape[:2]
    factor = max(1, round(MIN_PICTURE_SIZE / max(height, width)))
    if factor == 1:
        return image
    return _resized(image, (factor * width, factor * height), Image.Resampling.BICUBIC)


def fitted(image: np.ndarray) -> np.ndarray:
    """Enlarges a small H×W×3 uint8 image, and shrinks one longer than ``MAX_PICTURE_SIZE``."""
    height, width = image.shape[:2]
    factor = MAX_PICTURE_SIZE / max(height, width)
    if factor >= 1:
        return enlarge(image)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    # Each pixel becomes the mean of those that it replaces.
    return _resized(image, size, Image.Resampling.BOX)


def beside(pictures: list[np.ndarray]) -> np.ndarray:
    """Puts pictures of one height side by side, a white gap between them."""
    gap = np.full((pictures[0].shape[0], _GAP, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(row[:-1], axis=1)


def below(pictures: list[np.ndarray]) -> np.ndarray:
    """Puts pictures one below the other, left-aligned on white."""
    width = max(picture.shape[1] for picture in pictures)
    rows = [
        np.pad(p, ((0, _GAP), (0, width - p.shape[1]), (0, 0)), constant_values=255)
        for p in pictures
    ]
    return np.concatenate(rows)[:-_GAP]


def _resized(image: np.ndarray, size: tuple[int, int], rule: Image.Resampling) -> np.ndarray:
    """Resizes an image to a width and height; the result may be written to."""
    return np.array(Image.fromarray(np.ascontiguousarray(image)).resize(size, rule))

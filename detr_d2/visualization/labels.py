"""Labels on pictures: legible on any background, and none on top of another.

Axes: H×W the picture. Positions are x, y in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from detr_d2.visualization.colors import darker
from detr_d2.visualization.fonts import Line

# Rectangles are left, upper, right, lower; right and lower are outside.
Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True)
class Label:
    """A text and its place.

    Attributes:
        text: one line.
        point: x, y of the middle or the upper left corner of the text.
        color: RGB of the segment or box that the label names.
        centered: whether the point is the middle.
    """

    text: str
    point: tuple[float, float]
    color: np.ndarray
    centered: bool = True


def draw_labels(picture: np.ndarray, labels: Sequence[Label]) -> None:
    """Writes labels into a picture, in their order. Labels that find no room are left out.

    Args:
        picture: H×W×3 uint8, RGB, changed in place.
        labels: what to write.
    """
    height, width = picture.shape[:2]
    texts = [text_coverage(label.text, font_size((height, width))) for label in labels]
    taken: list[Rectangle] = []
    for label, coverage in zip(labels, texts, strict=True):
        rectangle = free_rectangle(label, coverage.shape[::-1], (width, height), taken)
        if rectangle is None:
            continue
        taken.append(rectangle)
        left, upper, right, lower = rectangle
        part = picture[upper:lower, left:right]
        ground = 0.2 * part + 0.8 * darker(label.color)
        white = coverage[: lower - upper, : right - left, None] / 255
        part[:] = (ground * (1 - white) + 255 * white).round()


def font_size(size: tuple[int, int]) -> int:
    """Returns the size of letters in pixels, for a picture of H, W."""
    return max(13, round((size[0] * size[1]) ** 0.5 / 55))


@lru_cache(maxsize=512)
def text_coverage(text: str, size: int) -> np.ndarray:
    """Draws a line of text with some room around it: h×w uint8, 255 where its ink is."""
    # All lines of one font are equally high, whatever letters they have.
    line = Line.of(text, size)
    margin = max(2, size // 5)
    canvas = Image.new("L", (line.width + 2 * margin, line.ascent + line.descent + margin))
    line.draw(ImageDraw.Draw(canvas), (margin, margin // 2), fill=255)
    return np.asarray(canvas)


def free_rectangle(
    label: Label, size: tuple[int, int], picture_size: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle | None:
    """Finds room for a label: at its point or a little above or below, inside the picture.

    Args:
        label: whose room is looked for.
        size: width and height of the label.
        picture_size: width and height.
        taken: rectangles that it must not touch.

    Returns:
        The rectangle, cut off where the picture is too small; None where there is no room.
    """
    (width, height), (x, y) = size, label.point
    if label.centered:
        x, y = x - width / 2, y - height / 2
    for rows in (0, 1, -1, 2, -2, 3, -3):
        left = int(np.clip(round(x), 0, max(0, picture_size[0] - width)))
        upper = int(np.clip(round(y + rows * height), 0, max(0, picture_size[1] - height)))
        right, lower = min(left + width, picture_size[0]), min(upper + height, picture_size[1])
        if not any(
            left < other[2] and other[0] < right and upper < other[3] and other[1] < lower
            for other in taken
        ):
            return left, upper, right, lower
    return None

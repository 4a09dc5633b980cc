"""Pictures of predictions, drawn with NumPy and Pillow alone.

Axes: H×W the image, h×w the picture, S segments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from detr_d2.deploy.model_info import ModelClass
from detr_d2.visualization.fonts import Line, warn_of_missing

# Smaller images are enlarged to about this length, so that names are legible on them.
MIN_PICTURE_SIZE = 480
# Share of a segment's colour in its pixels.
OPACITY = 0.5
# Objects of one class take turns: how far towards white (above 0) or black each one's colour is.
SHADES = (0.0, 0.45, -0.35, 0.22, -0.18, 0.6)
# Length at which the place of a name is looked for.
MAP_SIZE = 128


def draw_panoptic(
    image: np.ndarray, ids: np.ndarray, segments_info: list[dict], classes: Sequence[ModelClass]
) -> np.ndarray:
    """Draws a panoptic picture: colours of classes, shades of objects, outlines, names.

    Args:
        image: H×W×3 uint8, RGB.
        ids: H×W, 0 for nothing.
        segments_info: S dicts with ``id``, ``category_id`` (an index of ``classes``), ``isthing``
            and, where it is known, ``score`` in 0 … 1.
        classes: of the model.

    Returns:
        h×w×3 uint8, RGB: as large as the image, or for a small one a whole multiple of it.
    """
    factor = max(1, round(MIN_PICTURE_SIZE / max(image.shape[:2])))
    height, width = (factor * length for length in image.shape[:2])
    canvas = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    large_ids = ids.repeat(factor, 0).repeat(factor, 1)
    picture = _tint(np.asarray(canvas), large_ids, _color_of_ids(segments_info, classes))
    canvas = Image.fromarray(picture)
    _write_names(canvas, ids, segments_info, classes)
    return np.asarray(canvas)


def _color_of_ids(segments_info: list[dict], classes: Sequence[ModelClass]) -> np.ndarray:
    """A row of RGB for each id up to the highest: float32; that of 0 means nothing."""
    highest = max((segment["id"] for segment in segments_info), default=0)
    colors = np.zeros((highest + 1, 3), np.float32)
    seen: Counter[int] = Counter()
    for segment in segments_info:
        class_id = segment["category_id"]
        shade = SHADES[seen[class_id] % len(SHADES)] if segment["isthing"] else 0.0
        seen[class_id] += 1
        color = np.float32(classes[class_id].color)
        colors[segment["id"]] = color + abs(shade) * ((255 if shade > 0 else 0) - color)
    return colors


def _tint(picture: np.ndarray, ids: np.ndarray, color_of_id: np.ndarray) -> np.ndarray:
    """Lays colours over a picture, and lines between segments; what has no segment stays."""
    opacity = np.where(ids[..., None] > 0, np.float32(OPACITY), 0)
    tinted = picture + opacity * (color_of_id[ids] - picture)
    edges = _edges(ids, max(1, round(max(ids.shape) / 640)))
    tinted[edges] = 0.15 * tinted[edges] + 0.85 * 255
    return tinted.round().astype(np.uint8)


def _edges(ids: np.ndarray, thickness: int) -> np.ndarray:
    """Where the segment changes to the right or below: H×W bool."""
    edges = np.zeros(ids.shape, bool)
    for step in range(1, thickness + 1):
        edges[:, :-step] |= ids[:, :-step] != ids[:, step:]
        edges[:-step] |= ids[:-step] != ids[step:]
    return edges


def _write_names(
    canvas: Image.Image, ids: np.ndarray, segments_info: list[dict], classes: Sequence[ModelClass]
) -> None:
    """Writes names, those of large segments first; one that finds no place is left out."""
    draw = ImageDraw.Draw(canvas, "RGBA")
    warn_of_missing(tuple(each.name for each in classes))
    font_size = min(max(max(canvas.size) / 75, 12), 48)
    margin = round(0.3 * font_size)
    step = -(-max(ids.shape) // MAP_SIZE)
    small_ids = ids[step // 2 :: step, step // 2 :: step]
    areas = np.bincount(ids.ravel(), minlength=len(segments_info) + 1)
    taken: list[tuple[int, int, int, int]] = []
    for segment in sorted(segments_info, key=lambda segment: -areas[segment["id"]]):
        inside = small_ids == segment["id"]
        if not inside.any():
            continue
        score = f" {segment['score']:.0%}" if "score" in segment else ""
        text = f"{classes[segment['category_id']].name}{score}"
        line = Line.of(text, font_size)
        size = line.width + 2 * margin, line.ascent + line.descent + margin
        # From the map to the picture: the middle of a cell.
        y, x = (
            round((place + 0.5) / length * whole)
            for place, length, whole in zip(
                _inmost(inside), inside.shape, canvas.size[::-1], strict=True
            )
        )
        box = _free_place(x, y, size, canvas.size, taken)
        if box is None:
            continue
        taken.append(box)
        draw.rounded_rectangle(box, radius=margin, fill=(0, 0, 0, 165))
        line.draw(draw, (box[0] + margin, box[1] + margin // 2), fill=(255, 255, 255, 255))


def _inmost(inside: np.ndarray) -> tuple[int, int]:
    """(row, column) of the pixel farthest from the edge of a mask: the last that erosion leaves."""
    padded = np.pad(inside, 1)
    while True:
        core = np.zeros_like(padded)
        core[1:-1, 1:-1] = (
            padded[1:-1, 1:-1]
            & padded[:-2, 1:-1]
            & padded[2:, 1:-1]
            & padded[1:-1, :-2]
            & padded[1:-1, 2:]
        )
        if not core.any():
            break
        padded = core
    # Of several the one nearest to their centre.
    places = np.argwhere(padded)
    row, column = places[np.abs(places - places.mean(0)).sum(1).argmin()]
    return int(row) - 1, int(column) - 1


def _free_place(
    x: int, y: int, size: tuple[int, int], canvas: tuple[int, int], taken: list
) -> tuple[int, int, int, int] | None:
    """A box of a (width, height) around a point, or a little above or below; None: all taken."""
    width, height = size
    left = min(max(x - width // 2, 0), max(canvas[0] - width, 0))
    for shift in (0, 1, -1, 2, -2):
        top = y - height // 2 + shift * (height + 1)
        top = min(max(top, 0), max(canvas[1] - height, 0))
        box = left, top, left + width, top + height
        if not any(_overlap(box, other) for other in taken):
            return box
    return None


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return all(one[i] <= other[i + 2] and other[i] <= one[i + 2] for i in (0, 1))

"""Polygons and run-length encodings, checked before pycocotools' C code reads them.

That code checks nothing: it allocates memory for the whole length of an outline, and if run lengths
end before the picture, the rest of the picture is uninitialised memory.

Axes: H×W pixels; points are (x, y).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from detr_d2.data.prepare.problems import PreparationError
from detr_d2.file_io import quoted

# Longest outline of one annotation, in pixels: drawing takes some 80 bytes for each.
MAX_OUTLINE = 2_000_000
# Largest size of all regions of an image, in bytes. A few points can draw a very long outline.
MAX_ENCODED = 2**28


def region_rle(segmentation: Any, height: int, width: int) -> dict:
    """Converts COCO's ``segmentation`` of an annotation to a compressed RLE.

    Args:
        segmentation: a list of polygons ``[x0, y0, x1, y1, …]``, or an RLE with its ``size`` and
            its ``counts``, which are numbers or a text.
        height, width: of the image.

    Raises:
        PreparationError: it is none of these, or doesn't fit the image.
    """
    if isinstance(segmentation, dict):
        return _checked_rle(segmentation, height, width)
    if isinstance(segmentation, list) and segmentation:
        return polygons_rle(segmentation, height, width)
    raise PreparationError(
        f"it has no segmentation ({quoted(segmentation)}): it needs a list of polygons or an RLE. "
        "--skip-errors leaves such annotations out"
    )


def whole_polygons(segmentation: Any) -> tuple[Any, int]:
    """Brings the polygons of COCO's ``segmentation`` into their usual form.

    A single polygon may be given without a list around it, flat or as pairs.

    Returns:
        The segmentation without polygons of fewer than three points, and how many were left out. If
        all polygons have so few points, they all stay.

    Raises:
        PreparationError: a polygon has no points.
    """
    if not isinstance(segmentation, list) or not segmentation:
        return segmentation, 0
    flat = not any(isinstance(part, list | dict) for part in segmentation)
    pairs = len(segmentation) > 2 and all(
        isinstance(part, list) and len(part) == 2 and not any(isinstance(x, list) for x in part)
        for part in segmentation
    )
    polygons = [segmentation] if flat or pairs else segmentation
    whole = [p for p in polygons if not isinstance(p, list) or len(as_points(p)) >= 3]
    return whole or polygons, len(polygons) - len(whole or polygons)


def polygons_rle(polygons: list[list[float]], height: int, width: int) -> dict:
    """The union of polygons ``[x0, y0, x1, y1, …]``, drawn as COCO's tools do.

    Raises:
        PreparationError: a polygon has fewer than three points, or points that are no numbers or
            far outside the image; or all of them have too long an outline.
    """
    checked = [_checked_polygon(polygon, height, width) for polygon in polygons]
    outline = sum(map(_outline, checked))
    if outline > MAX_OUTLINE:
        raise PreparationError(
            f"polygons with an outline of {outline:.0f} pixels; {MAX_OUTLINE} are allowed"
        )
    return coco_mask.merge(coco_mask.frPyObjects(checked, height, width))


def check_points(points: np.ndarray, height: int, width: int) -> None:
    """Refuses N×2 points that are not finite, or lie further outside than the image is long.

    Raises:
        PreparationError: one of them is.
    """
    reach = max(height, width)
    inside = (points >= -reach) & (points <= np.array([width, height]) + reach)
    if not inside.all():  # NaN compares as False
        x, y = points[~inside.all(axis=1)][0]
        raise PreparationError(
            f"the point ({x:g}, {y:g}) is far outside the image of {width}×{height} pixels"
        )


def check_encoded(before: int, rle: dict) -> int:
    """Adds the size of a region to that of the image's regions before it, in bytes.

    Raises:
        PreparationError: the sum is above ``MAX_ENCODED``.
    """
    if before + len(rle["counts"]) > MAX_ENCODED:
        raise PreparationError(f"the image's regions need more than {MAX_ENCODED} bytes")
    return before + len(rle["counts"])


def as_points(numbers: Any) -> np.ndarray:
    """Converts points of a JSON, flat or in pairs, to N×2 float64.

    Raises:
        PreparationError: these are no points.
    """
    try:
        return np.asarray(numbers, np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError) as error:
        raise PreparationError(f"points have to be pairs of numbers ({error})") from error


def _checked_polygon(polygon: Any, height: int, width: int) -> list[float]:
    if not isinstance(polygon, list):
        raise PreparationError("a polygon has to be a list of numbers, x and y in turns")
    points = as_points(polygon)
    if len(points) < 3:
        raise PreparationError(f"a polygon of {len(points)} points; it needs three or more")
    check_points(points, height, width)
    return points.ravel().tolist()


def _outline(polygon: list[float]) -> float:
    """Pixels along a closed polygon, by the longer of both axes, as they are drawn."""
    points = np.array(polygon).reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())


def _checked_rle(rle: dict, height: int, width: int) -> dict:
    size, counts = rle.get("size"), rle.get("counts")
    if size != [height, width]:
        raise PreparationError(
            f"its RLE has the size {quoted(size)}, the image [height, width] is {[height, width]}"
        )
    runs = _runs_of_text(counts) if isinstance(counts, str) else _runs_of_numbers(counts)
    # No run is longer than the picture, so that the sum cannot overflow.
    if not ((runs >= 0) & (runs <= height * width)).all() or runs.sum() != height * width:
        raise PreparationError(
            f"the run lengths of its RLE don't add up to the image's {height * width} pixels"
        )
    return coco_mask.frPyObjects({"size": size, "counts": runs.tolist()}, height, width)


def _runs_of_numbers(counts: Any) -> np.ndarray:
    whole = isinstance(counts, list) and all(type(count) is int for count in counts)
    if not whole or not counts or max(map(abs, counts)) > 2**40:
        raise PreparationError("the counts of its RLE have to be whole numbers or a text")
    return np.array(counts)


def _runs_of_text(text: str) -> np.ndarray:
    """Run lengths of COCO's compressed RLE: five bits a character, lowest first, then deltas."""
    digits = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(~digits & 32)  # bit 5 says that the number goes on
    lengths = np.diff(ends, prepend=-1)
    whole = len(ends) and ends[-1] == len(digits) - 1
    if not whole or not text.isascii() or digits.min() < 0 or digits.max() > 63:
        raise PreparationError("the counts of its RLE are not in COCO's compressed form")
    if lengths.max() > 7:
        raise PreparationError("the counts of its RLE have a number that is too large")
    starts = ends - lengths + 1
    places = np.arange(len(digits)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((digits & 31) << 5 * places, starts)
    runs -= np.where(digits[ends] & 16, 1 << 5 * lengths, 0)  # two's complement
    # From the fourth on, each number is the difference from the run two places before.
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs

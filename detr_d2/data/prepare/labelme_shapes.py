"""Shapes of LabelMe, and of tools that write its JSONs, as pixels.

Axes: H×W pixels of the image, h×w of a mask in it; points are (x, y).
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from detr_d2.data.image_file import decode_image
from detr_d2.data.prepare.problems import PreparationError
from detr_d2.data.prepare.regions import as_points, check_points, polygons_rle
from detr_d2.file_io import quoted

# How many points each type has; None: three or more.
_POINTS = {"polygon": (None,), "rectangle": (2, 4), "rotation": (4,), "circle": (2,), "mask": (2,)}


def shape_rle(shape: dict, height: int, width: int) -> dict:
    """Converts a shape with an area to an RLE of the image's size.

    A rectangle has two opposite corners, or four. A turned rectangle (``rotation``) has four. A
    ``mask`` has the corners of its box, and a PNG of the box's size in base64.

    Raises:
        PreparationError: it is of another type, or its points or its mask are wrong.
    """
    kind = shape.get("shape_type") or "polygon"  # LabelMe's first versions had nothing else
    if not isinstance(kind, str) or kind not in _POINTS:
        *most, last = _POINTS
        raise PreparationError(
            f"its type is {quoted(kind)}; only {', '.join(most)} and {last} have an area here"
        )
    points = as_points(shape.get("points"))
    check_points(points, height, width)
    if None not in _POINTS[kind] and len(points) not in _POINTS[kind]:
        needed = " or ".join(map(str, _POINTS[kind]))
        raise PreparationError(f"a {kind} of {len(points)} points; it needs {needed}")
    if kind == "mask":
        return _encoded(_mask_in_box(shape.get("mask"), points, height, width))
    if kind == "circle":
        return _encoded(_disk(points[0], points[1], height, width))
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points.tolist()
        return polygons_rle([[left, top, right, top, right, bottom, left, bottom]], height, width)
    return polygons_rle([points.ravel().tolist()], height, width)


def _encoded(inside: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(inside, np.uint8))


def _disk(center: np.ndarray, edge: np.ndarray, height: int, width: int) -> np.ndarray:
    """H×W bool: pixels whose middles are no further from the centre than the edge is."""
    y = np.arange(height)[:, None] + 0.5 - center[1]
    x = np.arange(width) + 0.5 - center[0]
    return x**2 + y**2 <= np.square(edge - center).sum()


def _mask_in_box(encoded: Any, corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """H×W bool of a mask whose box has these corners.

    LabelMe counts the last row and column of most boxes, but not of all that it makes itself. So a
    mask may be one pixel larger than the distance of its corners, or not.
    """
    mask = _decoded_mask(encoded)
    left, top = np.round(corners.min(axis=0)).astype(int)
    apart = np.round(np.abs(corners[1] - corners[0])).astype(int)[::-1]
    if not np.isin(mask.shape - apart, (0, 1)).all():
        raise PreparationError(
            f"its mask has {mask.shape[1]}×{mask.shape[0]} pixels, its corners are "
            f"{apart[1]}×{apart[0]} apart"
        )
    inside = np.zeros((height, width), bool)
    rows = slice(max(top, 0), max(top + mask.shape[0], 0))
    columns = slice(max(left, 0), max(left + mask.shape[1], 0))
    seen = inside[rows, columns]
    mask = mask[max(-top, 0) :, max(-left, 0) :]
    seen[...] = mask[: seen.shape[0], : seen.shape[1]]
    return inside


def _decoded_mask(encoded: Any) -> np.ndarray:
    """h×w bool: what isn't black in a PNG."""
    if not isinstance(encoded, str) or not encoded:
        raise PreparationError("its type is mask, and it has no mask: a PNG in base64")
    try:
        image = decode_image(base64.b64decode(encoded, validate=True))
        # Numbers of any depth stay as they are. Colours become brightness; opacity is ignored.
        values = np.asarray(image if len(image.getbands()) == 1 else image.convert("L"))
    except (ValueError, binascii.Error) as error:
        raise PreparationError(f"its mask is no PNG in base64 ({error})") from error
    return values != 0

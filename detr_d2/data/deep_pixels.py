"""Scales images with more than 8 bits per channel to 8, by the value that stands for white.

Files of 16 bits often use fewer: X-rays, microscopes and cameras have 10, 12 or 14. A PNG or TIFF
does not say how many, and the other images of a dataset must not decide it, so it is a setting.

Axes: H×W pixels.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageFile

# The range that all 16 bits have, and the largest value of 8 bits.
FULL_RANGE, EIGHT_BITS = 65535, 255
# The largest value of TIFFs of 12 bits, which Pillow does not scale.
_TWELVE_BITS = 4095
# Formats that don't say how many of 16 bits are used. For others, Pillow scales the values.
_WITHOUT_RANGE = ("PNG", "TIFF")
# Colours of 16 bits as Pillow names their storage, and the order of their two bytes.
_DEEP_COLORS = re.compile("(RGB|RGBA|RGBX);16([BLN])")


def scale_to_8_bits(values: np.ndarray, deep_range: int) -> np.ndarray:
    """Scales 0 … ``deep_range`` to 0 … 255; larger values become 255. 16 bits keep the upper 8.

    Args:
        values: uint16, of any shape.
        deep_range: in 255 … 65535, see ``INPUT.DEEP_RANGE``.
    """
    if deep_range == FULL_RANGE:
        return (values >> 8).astype(np.uint8)
    # For 2ⁿ - 1, this also keeps the upper 8 of n bits.
    scaled = np.minimum(values, deep_range).astype(np.uint32) * (EIGHT_BITS + 1)
    return (scaled // (deep_range + 1)).astype(np.uint8)


def storage_of(image: Image.Image) -> str:
    """How the pixels of an image that isn't decoded yet are stored, in Pillow's words."""
    tiles = getattr(image, "tile", None)  # only images that come from files have it
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def to_8_bits(
    image: Image.Image,
    kind: str | None,
    storage: str,
    deep_range: int,
    decode_anew: Callable[[Callable[[ImageFile.ImageFile], None]], Image.Image],
) -> tuple[Image.Image, int | None]:
    """Scales an image of 16 bits to 8; other images stay as they are.

    Args:
        image: decoded.
        kind: its format.
        storage: see ``storage_of``.
        deep_range: see ``scale_to_8_bits``.
        decode_anew: opens the same file, calls its argument on it and decodes it.

    Returns:
        The image, and the largest value of an image of 16 bits, or an upper bound of that value;
        None for other images.

    Raises:
        ValueError: the range of the values is unknown, or not all of their bits can be read.
    """
    # Old Pillows hold 16-bit grey in 32 bits; new ones do so for PPM files.
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.uint16)
        if kind not in _WITHOUT_RANGE:
            return Image.fromarray(scale_to_8_bits(values, FULL_RANGE)), None
        if storage == "I;12":
            return Image.fromarray(scale_to_8_bits(values, _TWELVE_BITS)), None
        return Image.fromarray(scale_to_8_bits(values, deep_range)), int(values.max())
    if image.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits of unknown range: save it with 8 or 16 bits")
    if kind not in _WITHOUT_RANGE or ";16" not in storage:
        return image, None
    # For colours, Pillow gives the upper of two bytes.
    channels = min(3, len(image.getbands()))
    upper = np.asarray(image)[..., :channels]
    if deep_range == FULL_RANGE:
        return image, int(upper.max()) << 8 | 0xFF
    if _DEEP_COLORS.fullmatch(storage) is None:
        raise ValueError(
            f"INPUT.DEEP_RANGE {deep_range} can't be applied to pixels of 16 bits of this kind "
            f"({storage}): save it as grey or RGB"
        )
    lower = np.asarray(decode_anew(_exchange_bytes))[..., :channels]
    values = upper.astype(np.uint16) << 8 | lower
    return Image.fromarray(scale_to_8_bits(values, deep_range)), int(values.max())


def _exchange_bytes(image: ImageFile.ImageFile) -> None:
    """Changes the order of bytes, so that Pillow gives the lower of two bytes."""
    native = "L" if sys.byteorder == "little" else "B"

    def other(argument: object) -> object:
        found = _DEEP_COLORS.fullmatch(argument) if isinstance(argument, str) else None
        if found is None:
            return argument
        order = found[2].replace("N", native)
        return f"{found[1]};16{'B' if order == 'L' else 'L'}"

    def changed(tile: Any) -> Any:
        arguments = tile[3]
        new = tuple(map(other, arguments)) if isinstance(arguments, tuple) else other(arguments)
        # Tiles are named tuples in new Pillows, and plain tuples in old ones.
        return tile._replace(args=new) if hasattr(tile, "_replace") else (*tile[:3], new)

    image.tile = [changed(tile) for tile in image.tile]

"""Images of more than 8 bits a channel: which of their values is white.

Files of 16 bits often hold fewer: X-rays, microscopes and cameras have 10, 12 or 14. Nothing in a
PNG or TIFF says so, and no other image may decide what this one looks like: a setting tells it.

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
# What TIFFs of 12 bits have, which are unpacked as they are.
_TWELVE_BITS = 4095
# Formats that don't tell how many of 16 bits are used; of others Pillow scales what is.
_WITHOUT_RANGE = ("PNG", "TIFF")
# Colours of 16 bits as Pillow names their storage, and the order of their two bytes.
_DEEP_COLORS = re.compile("(RGB|RGBA|RGBX);16([BLN])")


def scale_to_8_bits(values: np.ndarray, deep_range: int) -> np.ndarray:
    """Makes 0 … ``deep_range`` to 0 … 255; what is above becomes 255. Of all 16 bits, the upper 8.

    Args:
        values: uint16, of any shape.
        deep_range: in 255 … 65535, see ``INPUT.DEEP_RANGE``.
    """
    if deep_range == FULL_RANGE:
        return (values >> 8).astype(np.uint8)
    # Of 2ⁿ - 1 this, too, takes the upper 8 of n bits.
    scaled = np.minimum(values, deep_range).astype(np.uint32) * (EIGHT_BITS + 1)
    return (scaled // (deep_range + 1)).astype(np.uint8)


def storage_of(image: Image.Image) -> str:
    """How pixels are stored, in Pillow's words; of an image that isn't decoded yet."""
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
    """Scales an image of 16 bits; gives others as they are.

    Args:
        image: decoded.
        kind: its format.
        storage: see ``storage_of``.
        deep_range: see ``scale_to_8_bits``.
        decode_anew: opens the same file, calls its argument on it and decodes it.

    Returns:
        The image, and the largest value of one of 16 bits, or what it is at most.

    Raises:
        ValueError: the range of the values, or all of their bits, can't be known.
    """
    # 16-bit grey, in old Pillows and of PPM files, is held in 32 bits.
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.uint16)
        if kind not in _WITHOUT_RANGE:
            return Image.fromarray(scale_to_8_bits(values, FULL_RANGE)), None
        if storage == "I;12":
            return Image.fromarray(scale_to_8_bits(values, _TWELVE_BITS)), None
        return Image.fromarray(scale_to_8_bits(values, deep_range)), int(values.max())
    if image.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits, whose range nothing tells: save it with 8 or 16 bits")
    if kind not in _WITHOUT_RANGE or ";16" not in storage:
        return image, None
    # Of colours Pillow gives the upper of two bytes.
    channels = min(3, len(image.getbands()))
    upper = np.asarray(image)[..., :channels]
    if deep_range == FULL_RANGE:
        return image, int(upper.max()) << 8 | 0xFF
    if _DEEP_COLORS.fullmatch(storage) is None:
        raise ValueError(
            f"pixels of 16 bits of a kind ({storage}) to which INPUT.DEEP_RANGE {deep_range} can't "
            "be applied: save it as grey or RGB"
        )
    lower = np.asarray(decode_anew(_exchange_bytes))[..., :channels]
    values = upper.astype(np.uint16) << 8 | lower
    return Image.fromarray(scale_to_8_bits(values, deep_range)), int(values.max())


def _exchange_bytes(image: ImageFile.ImageFile) -> None:
    """Has the lower of two bytes taken for the upper one, by the other order of bytes."""
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
        # Named in new Pillows, and plain in old ones.
        return tile._replace(args=new) if hasattr(tile, "_replace") else (*tile[:3], new)

    image.tile = [changed(tile) for tile in image.tile]

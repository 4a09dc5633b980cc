"""Reading image files: the one place that opens what others wrote as pictures.

Axes: H×W pixels.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image

from detr_d2.data.image_names import how_to_read, image_formats

try:
    from detectron2.utils.file_io import PathManager
except ImportError:  # as where exported models predict; files are local there
    PathManager = None

# Larger images are refused by their headers, before any memory is taken: 0.4 GB as RGB.
MAX_IMAGE_PIXELS = 2**27
# Brands in the header of HEIF and AVIF files, by their beginnings, with Pillow's names of these.
_BRANDS = {b"avi": "AVIF", b"hei": "HEIF", b"hev": "HEIF", b"mif1": "HEIF", b"msf1": "HEIF"}
# What makes an image upright, by its EXIF tag.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: str | Path, image_format: str) -> np.ndarray:
    """Reads an image as Detectron2's ``read_image`` does, upright by its EXIF tag.

    Grey, palette, CMYK and 1-bit images become colours, transparency is dropped, an animation is
    its first frame. Of 16 bits the upper 8 are taken, where Detectron2 would clip grey to white.

    Args:
        path: a file of one of ``image_formats()`` with at most ``MAX_IMAGE_PIXELS`` pixels.
        image_format: "RGB" or "BGR".

    Returns:
        H×W×3 uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it can't be read: truncated, no image, too large, or with pixels of 32 bits.
    """
    with open_image(path, "an image") as image:
        # Before the EXIF tags: asking for these hides errors, and Pillow turns TIFFs on loading.
        image.load()
        # The format, which turning loses, tells what 32 bits hold.
        kind = image.format
        colors = np.asarray(_to_8_bits(_upright(image), kind).convert("RGB"))
        return colors if image_format == "RGB" else colors[:, :, ::-1]


@contextmanager
def open_image(path: str | Path, what: str) -> Iterator[Image.Image]:
    """Opens an image of a sane size, not yet decoded, and gives errors the file's name.

    Args:
        path: of the file.
        what: the image is to be, for messages: "an image".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: instead of whatever else opening it raises, or the block that uses it.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError("it is a folder or device, not a file")
        with _open_binary(path) as file, _open_checked(file) as image:
            yield image
    except FileNotFoundError:
        raise
    # Damaged files make decoders raise nearly everything.
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be read as {what} ({str(error) or type(error).__name__}). "
            "Replace the file, or leave it out."
        ) from error


def _open_binary(path: str | Path) -> IO[bytes]:
    return open(path, "rb") if PathManager is None else PathManager.open(str(path), "rb")


def _open_checked(file) -> Image.Image:
    too_large = f"more than the {MAX_IMAGE_PIXELS:,} pixels that are allowed"
    try:
        with warnings.catch_warnings():
            # Pillow's own limit warns below ours and raises above it.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file, formats=image_formats())
    except Image.DecompressionBombError as error:
        raise ValueError(too_large) from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(_why_unidentified(file)) from error
    width, height = image.size
    if width * height > MAX_IMAGE_PIXELS:
        raise ValueError(f"{width}×{height}, {too_large}")
    if width * height == 0:
        raise ValueError("it has no pixels")
    return image


def _why_unidentified(file: IO[bytes]) -> str:
    file.seek(0)
    header = file.read(12)
    if not header:
        return "the file is empty"
    if header[4:8] == b"ftyp":  # also of files that are named .jpg all the same
        for brand, name in _BRANDS.items():
            if header[8:].startswith(brand) and how_to_read(name):
                return how_to_read(name)
    return f"none of {', '.join(image_formats())}, or damaged"


def _upright(image: Image.Image) -> Image.Image:
    """Turns an image as its EXIF tag says; ``ImageOps.exif_transpose`` fails on damaged tags."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged tags make Pillow raise nearly everything
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_8_bits(image: Image.Image, kind: str | None) -> Image.Image:
    """The upper 8 of 16 bits, as Pillow takes them of 16-bit colours; other images as they are."""
    # 16-bit grey, in old Pillows and of PPM files, is held in 32 bits.
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits, whose range nothing tells: save it with 8 or 16 bits")
    return image

"""Reads image files. No other module opens pictures that other programs wrote.

Axes: H×W pixels.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageFile

from detr_d2.data.deep_pixels import FULL_RANGE, storage_of, to_8_bits
from detr_d2.data.image_names import how_to_read, image_formats

if TYPE_CHECKING:
    from detectron2.config import CfgNode

# The header of a larger image is enough to refuse it. So many pixels are 0.4 GB as RGB.
MAX_IMAGE_PIXELS = 2**27
# How brands in headers of HEIF and AVIF files begin, with Pillow's names of the formats.
_BRANDS = {b"avi": "AVIF", b"hei": "HEIF", b"hev": "HEIF", b"mif1": "HEIF", b"msf1": "HEIF"}
# How an image is turned upright, by its EXIF tag. Images with the tag 1 are stored upright.
_STORED_UPRIGHT = 1
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXCHANGES_SIDES = {_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)}
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
# How each of these is undone.
_BACK = {turn: turn for turn in _UPRIGHT.values()} | {
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class ImageOptions:
    """How image files are to be understood, where they don't say so themselves.

    Attributes:
        deep_range: the value that becomes 255 in PNGs and TIFFs of 16 bits. So do larger values;
            see ``INPUT.DEEP_RANGE``.
        ignore_exif: leave images as they are stored, instead of turning them upright by their EXIF
            tag; see ``INPUT.IGNORE_EXIF``.
    """

    deep_range: int = FULL_RANGE
    ignore_exif: bool = False

    @classmethod
    def from_config(cls, cfg: CfgNode) -> ImageOptions:
        """Reads ``INPUT.DEEP_RANGE`` and ``INPUT.IGNORE_EXIF``."""
        return cls(deep_range=cfg.INPUT.DEEP_RANGE, ignore_exif=cfg.INPUT.IGNORE_EXIF)


DEFAULT_OPTIONS = ImageOptions()


def read_image(
    path: str | Path, image_format: str, options: ImageOptions = DEFAULT_OPTIONS
) -> np.ndarray:
    """Reads an image as Detectron2's ``read_image`` does, upright by its EXIF tag.

    Grey, palette, CMYK and 1-bit images become colours. Transparency is ignored. An animation gives
    its first frame. 16 bits keep the upper 8, where Detectron2 would clip grey to white. The
    options may say that fewer bits are used.

    Args:
        path: a file of one of ``image_formats()`` with at most ``MAX_IMAGE_PIXELS`` pixels.
        image_format: "RGB" or "BGR".
        options: how the file is to be understood.

    Returns:
        H×W×3 uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it can't be read: truncated, no image, too large, or with pixels of 32 bits.
    """
    colors, _ = read_measured(path, options)
    return colors if image_format == "RGB" else colors[:, :, ::-1]


def read_measured(
    path: str | Path, options: ImageOptions = DEFAULT_OPTIONS
) -> tuple[np.ndarray, int | None]:
    """Reads an image as ``read_image`` does, in RGB, and measures how much of 16 bits it uses.

    Returns:
        H×W×3 uint8, and the largest value of a PNG or TIFF of 16 bits (for colours, an upper
        bound); None for other images.

    Raises:
        FileNotFoundError, ValueError: see ``read_image``.
    """

    def decode_anew(prepare: Callable[[ImageFile.ImageFile], None]) -> Image.Image:
        with open_image(path, "an image") as image:
            prepare(image)
            image.load()
            return image

    with open_image(path, "an image") as image:
        # Decoding and turning lose these.
        kind, storage, stored_turn = image.format, storage_of(image), _turn_of_tiff(image)
        # This comes before EXIF tags are read: reading them hides errors, and loading turns TIFFs.
        image.load()
        if options.ignore_exif:
            turn = None if stored_turn is None else _BACK[stored_turn]
        else:
            turn = _turn_of(image)
        scaled, highest = to_8_bits(image, kind, storage, options.deep_range, decode_anew)
        upright = scaled if turn is None else scaled.transpose(turn)
        return np.asarray(upright.convert("RGB")), highest


def read_sizes(path: str | Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of an image as it is stored, and as its EXIF tag turns it upright.

    Raises:
        FileNotFoundError, ValueError: see ``read_image``; pixels are not decoded.
    """
    with open_image(path, "an image") as image:
        turn = _turn_of(image)
        # Some Pillows give the size that a TIFF has after decoding, which turns it.
        tags = getattr(image, "tag_v2", {})
        stored = tags.get(_TIFF_HEIGHT, image.height), tags.get(_TIFF_WIDTH, image.width)
        return stored, (stored[::-1] if turn in _EXCHANGES_SIDES else stored)


def explain_size(
    path: str | Path, size: tuple[int, int], expected: tuple[int, int], options: ImageOptions
) -> str:
    """Explains a size that differs from an annotation's only by EXIF's turn; "" for other sizes.

    Args:
        path: of an image that can be read.
        size: its height and width, as read with the options.
        expected: the annotation's.
        options: how the file is to be understood.
    """
    if size == expected or size != tuple(expected[::-1]):
        return ""
    stored, upright = read_sizes(path)
    if stored == upright:
        return ""
    if options.ignore_exif:
        return (
            "The annotation is of the image turned upright by its EXIF tag, and INPUT.IGNORE_EXIF "
            "is True: set it to False."
        )
    return (
        "Its EXIF tag turns it by 90°, and the annotation is of the image as it is stored: set "
        "INPUT.IGNORE_EXIF True, if that is so for all images, or remove the tag."
    )


@contextmanager
def open_image(path: str | Path, what: str) -> Iterator[ImageFile.ImageFile]:
    """Opens an image of an allowed size without decoding it. Errors name the file.

    Args:
        path: of the file.
        what: what the file should be, for messages: "an image".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: in place of any other error of opening it or of the block that uses it.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError("it is a folder or device, not a file")
        with _open_binary(path) as file, _open_checked(file) as image:
            yield image
    except FileNotFoundError:
        raise
    # Damaged files make decoders raise errors of nearly all types.
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be read as {what} ({str(error) or type(error).__name__}). "
            "Replace the file, or leave it out."
        ) from error


def decode_image(data: bytes) -> Image.Image:
    """Decodes an image that is held in memory, such as one inside a JSON.

    Raises:
        ValueError: it is none of ``image_formats()``, damaged or too large.
    """
    try:
        image = _open_checked(io.BytesIO(data))
        image.load()
    # Damaged files make decoders raise errors of nearly all types.
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error
    return image


def _open_binary(path: str | Path) -> IO[bytes]:
    """Opens a file. Detectron2, which knows addresses as well, is imported only for them."""
    if "://" not in str(path):
        return open(path, "rb")
    from detectron2.utils.file_io import PathManager

    return PathManager.open(str(path), "rb")


def _open_checked(file: IO[bytes]) -> ImageFile.ImageFile:
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
    if header[4:8] == b"ftyp":  # HEIF or AVIF, even if the file is named .jpg
        for brand, name in _BRANDS.items():
            if header[8:].startswith(brand) and how_to_read(name):
                return how_to_read(name)
    return f"none of {', '.join(image_formats())}, or damaged"


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """What turns an image upright; ``ImageOps.exif_transpose`` fails on damaged tags."""
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, _STORED_UPRIGHT))
    except Exception:  # damaged tags make Pillow raise errors of nearly all types
        return None


def _turn_of_tiff(image: Image.Image) -> Image.Transpose | None:
    """How Pillow turns a TIFF while it decodes it."""
    tags = getattr(image, "tag_v2", {})
    return _UPRIGHT.get(tags.get(ExifTags.Base.Orientation, _STORED_UPRIGHT))

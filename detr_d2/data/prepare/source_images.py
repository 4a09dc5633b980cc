"""Reads label images and the sizes of photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detr_d2.data.image_file import MAX_IMAGE_PIXELS, open_image, read_sizes
from detr_d2.data.prepare.problems import PreparationError
from detr_d2.file_io import quoted

# Grey values or palette indices of 8, 16 or 32 bits. 1 bit is not among them, since its white may
# mean 1 or 255.
_LABEL_MODES = ("L", "P", "I", "I;16", "I;16B", "I;16L")


def check_size(height: int, width: int) -> None:
    """Refuses sizes that no image may have.

    Raises:
        PreparationError: no pixels, or more than ``MAX_IMAGE_PIXELS``.
    """
    if not (height > 0 and width > 0 and height * width <= MAX_IMAGE_PIXELS):
        raise PreparationError(
            f"an image of {quoted(width)}×{quoted(height)} pixels; "
            f"from 1 to {MAX_IMAGE_PIXELS:,} pixels are allowed"
        )


def read_label_image(path: str | Path) -> np.ndarray:
    """Reads a PNG or TIFF whose pixels are numbers, not colours.

    Returns:
        H×W integers from 0 on.

    Raises:
        PreparationError: the file is missing, broken, too large, in colours or of a format that
            loses values.
    """
    try:
        with open_image(path, "a picture of class ids") as image:
            if image.format not in ("PNG", "TIFF"):
                raise ValueError(f"it is of the format {image.format}, and not a PNG")
            if image.mode not in _LABEL_MODES:
                raise ValueError(
                    "its pixels have to be numbers, grey values or palette indices of 8 bits or "
                    f"more, and this file has mode {image.mode!r}: was it saved in colours?"
                )
            values = np.asarray(image)
            if values.min() < 0:
                raise ValueError(f"a pixel has the value {values.min()}, below 0")
    except (OSError, ValueError) as error:
        raise PreparationError(str(error)) from error
    return values


def image_size(path: str | Path, ignore_exif: bool = False) -> tuple[int, int]:
    """Height and width of a photograph, turned upright by its EXIF tag.

    Args:
        path: the file.
        ignore_exif: take the photograph as it is stored.

    Raises:
        PreparationError: the file is missing, broken or too large.
    """
    stored, upright = _sizes(path)
    return stored if ignore_exif else upright


def explain_turn(path: str | Path, annotated: tuple[int, int], ignore_exif: bool) -> str:
    """Explains a size of an annotation that differs from the photograph's only by EXIF's turn.

    Args:
        path: of the photograph.
        annotated: height and width by the annotation.
        ignore_exif: see ``image_size``.

    Returns:
        The end of a message; "" for other sizes.
    """
    stored, upright = _sizes(path)
    if annotated == (upright if ignore_exif else stored) and stored != upright:
        if ignore_exif:
            return ". It is for the image turned upright by its EXIF tag: leave out --ignore-exif"
        return (
            ". It is for the image as it is stored, which its EXIF tag turns by 90°: --ignore-exif "
            "takes images so; training, evaluation and prediction then need INPUT.IGNORE_EXIF True"
        )
    return ""


def _sizes(path: str | Path) -> tuple[tuple[int, int], tuple[int, int]]:
    try:
        return read_sizes(path)
    except (OSError, ValueError) as error:
        raise PreparationError(str(error)) from error

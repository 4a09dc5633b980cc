"""Panoptic PNGs whose ids aren't those of the annotation: what has probably been done to them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from detr_d2.data.image_file import open_image
from detr_d2.data.panoptic_png import read_panoptic_png

# Formats that change colours, always or by a setting.
LOSSY_FORMATS = ("JPEG", "JPEG2000", "WEBP")
# So many times as many ids as segments come of mixed colours, and not of forgotten segments.
MIXED = 4
# The least number of strange ids that counts as many.
MANY = 20


def why_ids_differ(path: str | Path, known: Iterable[int]) -> str:
    """Why a PNG has ids that its annotation lacks, for the end of a message.

    Args:
        path: of the file, which is read again.
        known: the ids of the annotation's segments.

    Returns:
        A sentence with a blank before it; "" where nothing tells, or no id is strange.
    """
    try:
        present = np.unique(read_panoptic_png(path))
        with open_image(path, "a panoptic PNG") as image:
            file_format = image.format
    except (OSError, ValueError):
        return ""
    present, known = present[present != 0], list(known)
    num_strange = int((~np.isin(present, known)).sum())
    if num_strange == 0:
        return ""
    red, green, blue = present & 255, present >> 8 & 255, present >> 16
    if np.isin(blue | green << 8 | red << 16, known).all():
        return (
            " All ids fit after swapping red and blue: it was written as BGR. cv2.imwrite takes "
            "colours in this order, image[:, :, ::-1]."
        )
    if file_format in LOSSY_FORMATS:
        return (
            f" The file is a {file_format}, whatever its name, whose compression changes colours "
            "and with them ids: save real PNGs."
        )
    if num_strange > max(MIXED * len(known), MANY):
        return (
            f" It has {num_strange} such ids for {len(known)} segments: its colours were mixed, as "
            "JPEG or another lossy format does before it is saved as PNG, or resizing that smooths."
        )
    return ""

"""The likely reason why the ids of a panoptic PNG differ from those of its annotation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from detr_d2.data.image_file import open_image
from detr_d2.data.panoptic_png import read_panoptic_png

# Formats that change colours, always or by a setting.
LOSSY_FORMATS = ("JPEG", "JPEG2000", "WEBP")
# With more unknown ids per segment than this, colours were mixed, and not segments forgotten.
MIXED = 4
# With at most this many unknown ids, nothing is said about mixed colours.
MANY = 20


def why_ids_differ(path: str | Path, known: Iterable[int]) -> str:
    """Explains, at the end of a message, why a PNG has ids that its annotation lacks.

    Args:
        path: of the file, which is read again.
        known: the ids of the annotation's segments.

    Returns:
        A sentence that begins with a space; "" if the reason is unknown, or all ids are known.
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
            " All ids fit after swapping red and blue: it was written as BGR. cv2.imwrite expects "
            "BGR, so give it image[:, :, ::-1]."
        )
    if file_format in LOSSY_FORMATS:
        return (
            f" Whatever its name, the file is a {file_format}, whose compression changes colours "
            "and so ids: save real PNGs."
        )
    if num_strange > max(MIXED * len(known), MANY):
        return (
            f" It has {num_strange} such ids for {len(known)} segments: its colours were mixed, "
            "perhaps by JPEG or another lossy format before it was saved as PNG, or by a resizing "
            "that smooths."
        )
    return ""

"""Writes pictures for people.

Axes: H×W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from detr_d2.file_io import written_whole

# Level of PNG's compression, in 0 … 9. Higher ones take much longer and save a few percent.
COMPRESSION = 2


def write_picture(picture: np.ndarray, path: str | Path) -> None:
    """Writes a PNG, whole or not at all.

    Args:
        picture: H×W×3 uint8, RGB.
        path: of the file, in a folder that exists.

    Raises:
        OSError: it can't be written; the message names the file.
    """
    with written_whole(path) as file:
        Image.fromarray(picture).save(file, "PNG", compress_level=COMPRESSION)

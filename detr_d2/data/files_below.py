"""From a file name that an annotation holds to the file on the disk."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePosixPath


def find_below(root: str | Path, file_name: str, named_by: str | Path) -> str:
    """The path of a file in a folder or below it.

    Where there is no file of just this name, a backslash stands for "/", as Windows writes it, and
    letters with accents may be composed or not, as macOS and others disagree.

    Args:
        root: the folder.
        file_name: relative to it.
        named_by: the file that holds the name, for messages.

    Returns:
        The path as the disk has it; where nothing is found, the one that was named.

    Raises:
        ValueError: the name leads elsewhere.
    """
    path = PurePosixPath(file_name.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise ValueError(
            f"{named_by}: the file name {file_name!r} leaves its folder {root}. File names must be "
            "relative to the folder of images or of panoptic PNGs, without '..'."
        )
    literal = os.path.join(root, file_name)
    # Most names have no twin, so that the disk needn't be asked, once for each of many images.
    if (file_name.isascii() and "\\" not in file_name) or os.path.lexists(literal):
        return literal
    found = os.fspath(root)
    for part in path.parts:
        found = _find_in(found, part)
        if not os.path.lexists(found):
            return literal
    return found


def _find_in(folder: str, name: str) -> str:
    """The path of a file or folder of that name, or of a name that is written like it."""
    candidates = [os.path.join(folder, name)]
    candidates += [
        os.path.join(folder, unicodedata.normalize(form, name)) for form in ("NFC", "NFD")
    ]
    return next((path for path in candidates if os.path.lexists(path)), candidates[0])

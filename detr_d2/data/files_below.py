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
    # Most names have no twin, so that the disk needn't be asked, once for each of many images.
    is_plain = file_name.isascii() and "\\" not in file_name
    found = file_name if is_plain else name_on_disk(root, file_name)
    return os.path.join(root, file_name if found is None else found)


def name_on_disk(folder: str | Path, file_name: str) -> str | None:
    """The name of a file as the disk has it.

    Args:
        folder: that the name starts from.
        file_name: relative, unchecked. Backslashes and accents may be written as in ``find_below``.

    Returns:
        The name itself where there is such a file, else that of the file that is meant; None where
        none is there, or the name leaves the folder.
    """
    path = PurePosixPath(file_name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        return None
    if os.path.lexists(os.path.join(folder, file_name)):
        return file_name
    found = PurePosixPath()
    for part in path.parts:
        spellings = [part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD"))]
        there = [s for s in spellings if os.path.lexists(os.path.join(folder, found, s))]
        if not there:
            return None
        found /= there[0]
    return found.as_posix()

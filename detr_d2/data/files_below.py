"""Finds the file that an annotation names."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path, PurePosixPath

# Names without folders, of letters that have one spelling: nearly all names.
_PLAIN_NAME = re.compile(r"\w[\w.-]*", re.ASCII)


def find_below(root: str | Path, file_name: str, named_by: str | Path) -> str:
    """The path of a file in a folder or below it.

    If no file has exactly this name, a backslash counts as "/", as on Windows, and a letter with an
    accent may be one character or two, as systems disagree on that.

    Args:
        root: the folder.
        file_name: relative to it.
        named_by: the file that holds the name, for messages.

    Returns:
        The path on the disk, or the named path if nothing is found.

    Raises:
        ValueError: the name leads out of the folder.
    """
    if _PLAIN_NAME.fullmatch(file_name):
        return os.path.join(root, file_name)
    path = PurePosixPath(file_name.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise ValueError(
            f"{named_by}: the file name {file_name!r} leaves its folder {root}. File names must be "
            "relative to the folder of images or of panoptic PNGs, without '..'."
        )
    # Most names have only one spelling. Then the disk needn't be asked for each of many images.
    is_plain = file_name.isascii() and "\\" not in file_name
    found = file_name if is_plain else name_on_disk(root, file_name)
    return os.path.join(root, file_name if found is None else found)


def name_on_disk(folder: str | Path, file_name: str) -> str | None:
    """The name of a file as the disk has it.

    Args:
        folder: where the name starts.
        file_name: relative, unchecked. Backslashes and accents may be written as in ``find_below``.

    Returns:
        The name itself if there is such a file, else the spelling that is on the disk. None if no
        file is there, or the name leads out of the folder.
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

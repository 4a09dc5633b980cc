"""Names of files and folders, made from the names that people give to datasets."""

from __future__ import annotations

import hashlib
import re

# Longest readable part of a name, in bytes of UTF-8. File systems take 255, with suffixes.
MAX_LENGTH = 100
# The end of names that had to be changed. A name that already ends so has to be changed, too.
_HASH = re.compile(r"-[0-9a-f]{8}")


def file_name_of(name: str) -> str:
    """The name of a dataset's file or folder; the same dataset always gets the same name.

    A name of letters, digits, ``_``, ``-`` and dots stays as it is, unless a dot is first or last.
    In others, ``_`` replaces all other characters, and a hash of the name keeps them apart:
    ``pets/val``, ``pets val`` and ``pets_val`` get three names.

    Args:
        name: any text, also ``..`` or an absolute path.

    Returns:
        One part of a path, without a suffix. It never leads out of its folder.
    """
    readable = re.sub(r"[^\w.-]+", "_", name)
    readable = readable.encode()[:MAX_LENGTH].decode(errors="ignore").strip(".")
    if readable == name and name and not _HASH.fullmatch(name[-9:]):
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{readable or 'dataset'}-{digest}"

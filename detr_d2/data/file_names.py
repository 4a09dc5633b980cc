"""Names of files and folders that are made of what people call their datasets."""

from __future__ import annotations

import hashlib
import re

# Of a name's readable part, in bytes of UTF-8: file systems take 255, suffixes among them.
MAX_LENGTH = 100
# What is added to names that had to be changed. Others mustn't look as if they had been.
_HASH = re.compile(r"-[0-9a-f]{8}")


def file_name_of(name: str) -> str:
    """A name of a file or folder for the name of a dataset, always the same one.

    A name of letters, digits, ``_``, ``-`` and dots, none of them first or last, stays as it is. In
    others, ``_`` stands for the rest, and a hash of the name keeps them apart: ``pets/val``,
    ``pets val`` and ``pets_val`` are three.

    Args:
        name: any text, also ``..`` or an absolute path.

    Returns:
        One part of a path, without a suffix, that never leaves the folder it is put in.
    """
    readable = re.sub(r"[^\w.-]+", "_", name)
    readable = readable.encode()[:MAX_LENGTH].decode(errors="ignore").strip(".")
    if readable == name and name and not _HASH.fullmatch(name[-9:]):
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{readable or 'dataset'}-{digest}"

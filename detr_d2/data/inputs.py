"""Which files are meant by the names of files, folders and globs, and the names of pictures."""

from __future__ import annotations

import glob
from collections.abc import Collection, Sequence
from pathlib import Path

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"}


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Expands files, folders (with all below them) and globs to image files, in order.

    A file that is named itself is taken whatever its suffix, also where it doesn't exist: reading
    it then says so.

    Raises:
        FileNotFoundError: a folder or glob holds no image.
    """
    return _find(inputs, IMAGE_SUFFIXES, "images")


def find_pictures(inputs: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Expands names as ``find_images`` does, to image files and to videos.

    Raises:
        FileNotFoundError: a folder or glob holds neither.
    """
    found = _find(inputs, IMAGE_SUFFIXES | VIDEO_SUFFIXES, "images or videos")
    videos = [path for path in found if path.suffix.lower() in VIDEO_SUFFIXES]
    return [path for path in found if path.suffix.lower() not in VIDEO_SUFFIXES], videos


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """A name for each file, without suffix; those that are taken, in whatever case, get numbers."""
    names: list[str] = []
    taken: set[str] = set()
    for path in paths:
        name, number = path.stem, 2
        while name.lower() in taken:
            name, number = f"{path.stem}_{number}", number + 1
        taken.add(name.lower())
        names.append(name)
    return names


def _find(inputs: Sequence[str], suffixes: Collection[str], what: str) -> list[Path]:
    found: list[Path] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            candidates = sorted(path.rglob("*"))
        elif glob.has_magic(name) and not path.exists():
            candidates = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
        else:
            found.append(path)
            continue
        files = [p for p in candidates if p.suffix.lower() in suffixes and p.is_file()]
        if not files:
            raise FileNotFoundError(f"No {what} in {name} (suffixes: {sorted(suffixes)})")
        found.extend(files)
    return found

"""Finds the images of files, folders and globs, and chooses names for pictures of them."""

from __future__ import annotations

import glob
import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from detr_d2.data.image_names import (
    HIDDEN_FOLDERS,
    VIDEO_SUFFIXES,
    describe_left_out,
    image_suffixes,
    visible_files,
)

logger = logging.getLogger(__name__)


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Expands files, folders (with all below them) and globs to image files, in order.

    A file that is named itself is always taken, whatever its suffix. A missing one is an error when
    it is read. Hidden files and folders are left out. The log has one line on the images and videos
    of a folder or glob that are not taken.

    Raises:
        FileNotFoundError: a folder or glob holds no image.
    """
    return _find(inputs, image_suffixes(), "images")


def find_pictures(inputs: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Expands names as ``find_images`` does, to image files and to videos.

    Raises:
        FileNotFoundError: a folder or glob holds neither.
    """
    found = _find(inputs, image_suffixes() | VIDEO_SUFFIXES, "images or videos")
    videos = [path for path in found if path.suffix.lower() in VIDEO_SUFFIXES]
    return [path for path in found if path.suffix.lower() not in VIDEO_SUFFIXES], videos


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """A different name for each file, without suffix, also where case makes no difference."""
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
            candidates = visible_files(path)
        elif glob.has_magic(name) and not path.exists():
            candidates = _expand(name)
        else:
            found.append(path)
            continue
        files = [p for p in candidates if p.suffix.lower() in suffixes and p.is_file()]
        left_out = describe_left_out(candidates, suffixes)
        if not files:
            problem = f"No {what} in {name} (suffixes: {' '.join(sorted(suffixes))})."
            raise FileNotFoundError(f"{problem} {left_out}".strip())
        if left_out:
            logger.warning("%s: %s", name, left_out)
        found.extend(files)
    return found


def _expand(pattern: str) -> list[Path]:
    """The files that match a glob. A glob leaves out names that begin with a dot."""
    matches = (Path(match) for match in sorted(glob.glob(pattern, recursive=True)))
    unwanted = HIDDEN_FOLDERS.difference(Path(pattern).parts)
    return [path for path in matches if unwanted.isdisjoint(path.parts)]

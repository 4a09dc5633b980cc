"""Finds files that belong together, and checks file names that other programs wrote."""

from __future__ import annotations

import glob
import posixpath
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, Self

from detr_d2.data.files_below import name_on_disk
from detr_d2.data.image_names import image_suffixes, visible_files, why_unread
from detr_d2.data.prepare.problems import PreparationError
from detr_d2.file_io import quoted

# Kinds of characters that names may not have: controls, surrogates, ends of lines and paragraphs.
# All kinds of spaces and joiners occur in real names.
_REFUSED = {"Cc", "Cs", "Zl", "Zp"}
# In bytes; most file systems take 255 for a part and 4096 for a path, and endings are added.
MAX_PART, MAX_NAME = 240, 1024
LABEL_EXTENSIONS = (".png", ".tif", ".tiff")


def check_file_name(name: object) -> str:
    """Returns a file name, after checking that it stays in its folder on every system.

    Raises:
        PreparationError: it is no relative path, leads out of the folder or is too long.
    """
    if not isinstance(name, str) or not name:
        raise PreparationError(f"the file name {quoted(name)} has to be a text")
    parts = _with_slashes(name).split("/")
    if not parts[0] or PureWindowsPath(name).drive:
        raise PreparationError(
            f"the file name {quoted(name)} has to be relative to the image folder"
        )
    refused = any(unicodedata.category(character) in _REFUSED for character in name)
    if not {"", ".", ".."}.isdisjoint(parts) or refused:
        raise PreparationError(
            f"the file name {quoted(name)} may have neither '.', '..' or empty parts nor "
            "characters that don't print"
        )
    if len(name.encode()) > MAX_NAME or max(len(part.encode()) for part in parts) > MAX_PART:
        raise PreparationError(f"the file name {quoted(name)} is too long")
    return name


def png_name(file_name: str, taken: Collection[str]) -> str:
    """The name of an image's PNG: the same name and sub-folders with another ending.

    Args:
        file_name: of the image, checked.
        taken: names that are in use, in lower case, as two names must not differ by case alone. If
            necessary, the ending of the image stays in the new name.
    """
    file_name = _with_slashes(file_name)
    stem, _ = posixpath.splitext(file_name)  # pathlib's suffixes differ between Pythons
    candidate, number = f"{stem}.png", 1
    while candidate.lower() in taken:
        candidate = f"{file_name}.png" if number == 1 else f"{file_name}.{number}.png"
        number += 1
    return candidate


def _with_slashes(name: str) -> str:
    return name.replace("\\", "/")


def found_name(folder: str | Path, name: str) -> str:
    """The name of a file as ``name_on_disk`` finds it, or else the given name with slashes."""
    if name.isascii() and "\\" not in name:
        return name
    return name_on_disk(folder, name) or _with_slashes(name)


def _composed(name: str) -> str:
    """Unicode's form C: ü as one character, which some systems write as u and two dots."""
    return unicodedata.normalize("NFC", name)


def existing_folder(folder: str | Path) -> Path:
    """Returns the folder, after checking that it is there.

    Raises:
        NotADirectoryError: it is not.
    """
    if not Path(folder).is_dir():
        raise NotADirectoryError(f"There is no folder {folder}.")
    return Path(folder)


def files_by_stem(
    folder: str | Path, extensions: Collection[str], suffix: str = ""
) -> dict[str, list[str]]:
    """Files in a folder and below, by their relative names without ending and suffix.

    Args:
        folder: hidden files and folders in it are left out, see ``visible_files``.
        extensions: with the dot, in lower case; files with others are left out.
        suffix: the last part of names before the ending; files without it are left out.

    Returns:
        Relative names with slashes, sorted; more than one where only the ending differs.

    Raises:
        NotADirectoryError: there is no such folder.
    """
    root = existing_folder(folder)
    files: dict[str, list[str]] = {}
    for path in visible_files(root):
        name = path.relative_to(root)
        if name.suffix.lower() in extensions and name.stem.endswith(suffix):
            stem = name.with_name(name.stem.removesuffix(suffix)).as_posix()
            files.setdefault(stem, []).append(name.as_posix())
    return files


@dataclass(frozen=True)
class PairedImage:
    """An image whose annotation is a file of its own. Each source has a subclass.

    Attributes:
        image_id, file_name: as they are to be written.
        image_path, annotation_path: files.
        ignore_exif: see ``image_size``.
    """

    image_id: int
    file_name: str
    image_path: Path
    annotation_path: Path
    ignore_exif: bool = field(default=False, kw_only=True)

    @property
    def image(self) -> dict:
        """COCO's description, without the size."""
        return {"id": self.image_id, "file_name": self.file_name}

    @classmethod
    def of_pairs(
        cls,
        pairs: Iterable[tuple[str, str]],
        images: str | Path,
        annotations: str | Path,
        **known: Any,
    ) -> list[Self]:
        """The images of ``pair_with_images``, numbered from 1 on; ``known`` is for subclasses."""
        return [
            cls(number, name, Path(images, name), Path(annotations, annotation), **known)
            for number, (name, annotation) in enumerate(pairs, start=1)
        ]


@dataclass(frozen=True)
class Pairs:
    """Images and their annotations.

    Attributes:
        pairs: relative names of the image and of its annotation.
        problems: annotations without an image, and the like.
        notes: how many images have no annotation.
    """

    pairs: list[tuple[str, str]]
    problems: list[str]
    notes: list[str]


def pair_with_images(
    annotations: str | Path,
    extensions: Collection[str],
    suffix: str,
    images: str | Path,
    image_suffix: str,
) -> Pairs:
    """Finds the image of each annotation: it has the same name and the same sub-folder.

    Accents may be written as one character or two.

    Args:
        annotations, images: folders.
        extensions: of annotations.
        suffix, image_suffix: the part before the ending in which both names differ.

    Raises:
        NotADirectoryError: a folder isn't there.
        PreparationError: there are no annotations.
    """
    annotated = files_by_stem(annotations, extensions, suffix)
    if not annotated:
        raise PreparationError(
            f"{annotations}: no file in it or below ends in "
            + " or ".join(suffix + extension for extension in extensions)
        )
    found = files_by_stem(images, image_suffixes(), image_suffix)
    twins = {_composed(stem): stem for stem in found}
    pairs, problems, used = [], [], set()
    for stem, files in annotated.items():
        image_stem = stem if stem in found else twins.get(_composed(stem), stem)
        used.add(image_stem)
        candidates = found.get(image_stem, [])
        if len(files) == len(candidates) == 1:
            pairs.append((candidates[0], files[0]))
        elif len(files) > 1:
            problems.append(f"{annotations}: {' and '.join(files)} are of the same image")
        else:
            wanted = Path(images, stem + image_suffix)
            which = f"several images: {', '.join(candidates)}" if candidates else "no image"
            problem = f"{Path(annotations, files[0])}: {which} named {wanted}.*"
            problems.append(". ".join([problem, *_why_unread(wanted)]))
    missing = [files[0] for stem, files in found.items() if stem not in used]
    notes = []
    if missing:
        notes.append(f"{len(missing)} images have no annotation, the first is {missing[0]}")
    return Pairs(pairs, problems, notes)


def _why_unread(wanted: Path) -> list[str]:
    """What to do about images of this name, without ending, that can't be read here."""
    there = wanted.parent.glob(f"{glob.escape(wanted.name)}.*")
    return sorted({reason for path in there if (reason := why_unread(path))})

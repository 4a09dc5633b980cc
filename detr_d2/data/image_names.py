"""Names of images and videos: the only list of their endings, and the files of a folder."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

from PIL import Image

# Pillow's formats that are tried for files of any ending, and the endings of each. Pillow knows
# more formats, but it starts other programs for some of them.
_ENDINGS = {
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "PNG": (".png", ".apng"),
    "PPM": (".pbm", ".pgm", ".ppm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
# Formats that not every installation reads, and how to get them.
_OPTIONAL_ENDINGS = {
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heif", ".hif", ".heics", ".heifs"),
}
_BRINGS = {"AVIF": "update Pillow to 11.3 or newer", "HEIF": "pip install pillow-heif"}
VIDEO_SUFFIXES = frozenset(
    ".mp4 .avi .mov .mkv .webm .m4v .mpg .mpeg .wmv .flv .3gp .mts .m2ts .ogv".split()
)
# Images and videos that are never read: raw photographs, drawings, medical and floating-point ones.
_OTHER_ENDINGS = frozenset(
    ".3fr .arw .cr2 .cr3 .dng .erf .kdc .mrw .nef .nrw .orf .pef .raf .raw .rw2 .sr2 .srw .x3f "
    ".ai .cdr .emf .eps .kra .psb .psd .svg .svgz .wmf .xcf "
    ".dcm .dicom .mha .mhd .nii .nrrd .czi .lif .nd2 .ndpi .svs .ecw .sid "
    ".cur .dds .dib .exr .fit .fits .hdr .icns .ico .jbig2 .jls .jng .jxl .jxr .pcx .pfm .qoi "
    ".ras .rgb .sgi .tga .wbmp .xbm .xpm "
    ".asf .f4v .h264 .h265 .hevc .m2v .mpe .mxf .rm .rmvb .vob .y4m .yuv".split()
)
# Archives made by macOS have this folder: its files are named like images, but are none.
HIDDEN_FOLDERS = frozenset({"__MACOSX"})
# How many names of files a message shows.
_SHOWN = 3


@cache
def image_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read in this installation."""
    # People may have this plugin; no part of the package needs it.
    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
    Image.init()
    return (*_ENDINGS, *(name for name in _OPTIONAL_ENDINGS if name in Image.OPEN))


@cache
def image_suffixes() -> frozenset[str]:
    """Endings of image files that are read, with the dot, in lower case."""
    endings = _ENDINGS | _OPTIONAL_ENDINGS
    return frozenset(ending for name in image_formats() for ending in endings[name])


def why_unread(path: str | Path) -> str:
    """What to do about a file whose ending is of a format that isn't read here; else ""."""
    return _why_unread({Path(path).suffix.lower()})


def how_to_read(image_format: str) -> str:
    """What makes "AVIF" or "HEIF" files readable, for messages; "" if they are readable."""
    if image_format in image_formats():
        return ""
    return f"{image_format} isn't read here: convert it to JPEG, or {_BRINGS[image_format]}"


def visible_files(folder: str | Path) -> list[Path]:
    """All files in a folder and below, sorted, without hidden files and hidden folders.

    A name is hidden if it begins with a dot, such as the ``._a.jpg`` of macOS and Jupyter's
    ``.ipynb_checkpoints``, or is ``__MACOSX``. The folder itself may have any name.
    """
    found = []
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        found += [Path(at, name) for name in names if not _is_hidden(name)]
    return sorted(found)


def describe_left_out(files: Iterable[Path], taken: Collection[str]) -> str:
    """Lists the files that look like images or videos and are not taken.

    Args:
        files: all that are there.
        taken: endings of the files that are taken.

    Returns:
        One line with counts, first names and what to do; "" if no file is left out.
    """
    known = image_suffixes().union(VIDEO_SUFFIXES, _OTHER_ENDINGS, *_OPTIONAL_ENDINGS.values())
    left: dict[str, list[str]] = {}
    for path in files:
        ending = path.suffix.lower()
        if ending in known and ending not in taken:
            left.setdefault(ending, []).append(path.name)
    if not left:
        return ""
    total = sum(map(len, left.values()))
    kinds = "; ".join(f"{len(names)} {ending} ({_some(names)})" for ending, names in left.items())
    line = f"{total} {'file' if total == 1 else 'files'} left out: {kinds}."
    advice = _why_unread(left.keys())
    return f"{line} {advice}." if advice else line


def _why_unread(endings: Collection[str]) -> str:
    advice = (
        how_to_read(name)
        for name, of_format in _OPTIONAL_ENDINGS.items()
        if not set(endings).isdisjoint(of_format)
    )
    return ". ".join(text for text in advice if text)


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:_SHOWN], *["…"] * (len(names) > _SHOWN)])


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in HIDDEN_FOLDERS

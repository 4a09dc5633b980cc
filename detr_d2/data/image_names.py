"""Which names are those of images and videos: the one list of endings, and what a folder holds."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

from PIL import Image

# Pillow's formats that are tried, whatever a file's ending, and the endings of each. Pillow knows
# more formats, for some of which it starts programs.
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
# Those that not every installation reads, and what brings them.
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
# What archives made by macOS bring along: files of the same names that are no images.
HIDDEN_FOLDERS = frozenset({"__MACOSX"})
# Names of files that a message gives.
_SHOWN = 3


@cache
def image_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read in this installation."""
    # A plugin that people may have; no part of the package needs it.
    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
    Image.init()
    return (*_ENDINGS, *(name for name in _OPTIONAL_ENDINGS if name in Image.OPEN))


@cache
def image_suffixes() -> frozenset[str]:
    """Endings of image files that are read, with the dot, in small letters."""
    endings = _ENDINGS | _OPTIONAL_ENDINGS
    return frozenset(ending for name in image_formats() for ending in endings[name])


def why_unread(path: str | Path) -> str:
    """What to do about a file whose format, by its ending, isn't read here; else nothing."""
    return _why_unread({Path(path).suffix.lower()})


def how_to_read(image_format: str) -> str:
    """What makes "AVIF" or "HEIF" files readable, for messages; nothing where they are."""
    if image_format in image_formats():
        return ""
    return f"{image_format} isn't read here: convert it to JPEG, or {_BRINGS[image_format]}"


def visible_files(folder: str | Path) -> list[Path]:
    """All files in a folder and below, sorted, but for hidden ones and those in hidden folders.

    Hidden are names that begin with a dot, such as the ``._a.jpg`` of macOS and Jupyter's
    ``.ipynb_checkpoints``, and ``__MACOSX``. The folder itself may have any name.
    """
    found = []
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        found += [Path(at, name) for name in names if not _is_hidden(name)]
    return sorted(found)


def describe_left_out(files: Iterable[Path], taken: Collection[str]) -> str:
    """Says which files look like images or videos and aren't taken.

    Args:
        files: all that there are.
        taken: the endings that are.

    Returns:
        One line with counts, first names and what to do; nothing where no file is left out.
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

"""The font files of a machine, the best ones for names on pictures first."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from functools import cache
from pathlib import Path

FONT_SUFFIXES = {".ttf", ".otf", ".ttc", ".otc"}
# Beginnings of the names of files, without hyphens and in small letters, the best first: legible
# when small, and of many scripts.
_PREFERRED = (
    *("dejavusans", "notosans", "liberationsans", "notosanscjk", "sourcehansans", "wqy"),
    *("arialunicode", "arial", "segoeui", "helveticaneue", "helvetica", "freesans"),
)
_STYLES = re.compile(
    "bold|italic|oblique|light|thin|black|heavy|medium|mono|serif|condensed|display"
)
# This font draws a symbol for each block of Unicode instead of the characters.
_UNWANTED = "lastresort"


@cache
def font_files() -> tuple[Path, ...]:
    """Finds all fonts, the preferred ones first and each name once."""
    found: dict[str, Path] = {}
    for folder in font_folders():
        for at, _, names in os.walk(folder):
            for name in sorted(names):
                if Path(name).suffix.lower() in FONT_SUFFIXES and _UNWANTED not in name.lower():
                    found.setdefault(name, Path(at, name))
    return tuple(found[name] for name in sorted(found, key=_rank))


def font_folders() -> list[Path]:
    """Returns folders with fonts: that of matplotlib, if it is installed, and the system's."""
    home = Path.home()
    if sys.platform == "darwin":
        folders = [home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts")]
    elif sys.platform == "win32":
        local = Path(os.environ.get("LOCALAPPDATA", home / "AppData/Local"))
        folders = [local / "Microsoft/Windows/Fonts"]
        folders += [Path(os.environ.get("WINDIR", "C:/Windows"), "Fonts")]
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
        folders = [data / "fonts", home / ".fonts"]
        folders += [Path("/usr/local/share/fonts"), Path("/usr/share/fonts")]
    # matplotlib is only located: importing it takes long.
    matplotlib = importlib.util.find_spec("matplotlib")
    if matplotlib is not None and matplotlib.origin:
        folders.insert(0, Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf")
    return [folder for folder in folders if folder.is_dir()]


def _rank(name: str) -> tuple:
    """Returns a key for sorting: plain styles come first, then the best known names."""
    plain = re.sub("[-_ ]", "", Path(name).stem.lower())
    place = next((i for i, start in enumerate(_PREFERRED) if plain.startswith(start)), 99)
    return _STYLES.search(plain) is not None, place, len(plain), name

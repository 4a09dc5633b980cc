"""Draws lines of text, with as many fonts as their characters need.

Positions are x, y in pixels.
"""

from __future__ import annotations

import io
import logging
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from PIL import ImageDraw, ImageFont

from detr_d2.visualization.fonts.font_coverage import coverage_of, coverage_of_file, has_character
from detr_d2.visualization.fonts.font_files import font_files

logger = logging.getLogger(__name__)

# Number of names that a warning lists.
_SHOWN_NAMES = 5


@dataclass(frozen=True)
class Line:
    """A line of text, ready to be measured and drawn.

    Attributes:
        runs: parts of the text, each with its font.
        width: from the origin to the last pixel.
        ascent, descent: of the highest font above the baseline, and of the deepest below it.
    """

    runs: tuple[tuple[str, ImageFont.FreeTypeFont], ...]
    width: int
    ascent: int
    descent: int

    @classmethod
    @lru_cache(maxsize=512)
    def of(cls, text: str, size: float) -> Line:
        """Chooses the fonts of a text.

        Args:
            text: its line breaks become spaces. Characters that no font has become boxes, see
                ``warn_of_missing``.
            size: in pixels.
        """
        runs = tuple((part, _font(path, size)) for part, path in runs_of(_with_plain_spaces(text)))
        metrics = [font.getmetrics() for _, font in runs]
        before = sum(font.getlength(part) for part, font in runs[:-1])
        last, font = runs[-1]
        width = round(before) + round(font.getbbox(last)[2])
        return cls(runs, width, *(max(lengths) for lengths in zip(*metrics, strict=True)))

    def draw(
        self, canvas: ImageDraw.ImageDraw, place: tuple[int, int], fill: int | tuple[int, ...]
    ) -> None:
        """Writes the line; a place is its upper left corner, ``ascent`` above the baseline."""
        x: float = place[0]
        baseline = place[1] + self.ascent
        for part, font in self.runs:
            canvas.text((round(x), baseline), part, fill=fill, font=font, anchor="ls")
            x += font.getlength(part)


def runs_of(text: str) -> list[tuple[str, Path | None]]:
    """Divides a text by the fonts that it needs; None stands for Pillow's own font.

    If one font has all characters, it is used for all of them. If none has, each character is drawn
    in the font of the character before it, if that font has it, or in the first font that has it.
    """
    for path in (*font_files(), None):
        if not _lacking(text, path):
            return [(text, path)]
    runs: list[tuple[str, Path | None]] = []
    for character in text:
        path = runs[-1][1] if runs else _first_with(character)
        if _lacking(character, path):
            path = _first_with(character)
        if runs and runs[-1][1] == path:
            runs[-1] = (runs[-1][0] + character, path)
        else:
            runs.append((character, path))
    return runs


@lru_cache(maxsize=64)
def warn_of_missing(names: tuple[str, ...]) -> None:
    """Logs which characters of names no font has, once for each set of names.

    Args:
        names: of all classes, so that one warning lists everything that is missing.
    """
    lacking = {name: missing for name in names if (missing := missing_characters(name))}
    if not lacking:
        return
    shown = ", ".join(
        f"{missing} of {name!r}" for name, missing in list(lacking.items())[:_SHOWN_NAMES]
    )
    more = len(lacking) - _SHOWN_NAMES
    logger.warning(
        "No font on this machine has %s%s: pictures show boxes instead. Install fonts of these "
        "scripts; Debian and Ubuntu: apt install fonts-dejavu-core fonts-noto-cjk fonts-noto-core; "
        "for Latin, Cyrillic and Greek anywhere: pip install matplotlib, which brings a font.",
        shown,
        f", and characters of {more} more names" if more > 0 else "",
    )


def missing_characters(text: str) -> str:
    """Returns the characters of a text that no font has, each once."""
    usual = font_files()[:1] or (None,)
    candidates = dict.fromkeys(c for c in _with_plain_spaces(text) if _lacking(c, usual[0]))
    return "".join(c for c in candidates if _lacking(c, _first_with(c)))


def _with_plain_spaces(text: str) -> str:
    """Replaces all kinds of spaces and controls by the plain space, which every font has."""
    plain = ("Cc", "Zl", "Zp", "Zs")
    return "".join(" " if unicodedata.category(c) in plain else c for c in text)


@lru_cache(maxsize=4096)
def _first_with(character: str) -> Path | None:
    """Returns the first font that has a character, or the usual font if none has."""
    for path in (*font_files(), None):
        if not _lacking(character, path):
            return path
    return next(iter(font_files()), None)


def _lacking(text: Iterable[str], path: Path | None) -> bool:
    coverage = _own_coverage() if path is None else coverage_of_file(path)
    return any(not has_character(coverage, c) for c in text if not _is_invisible(c))


def _is_invisible(character: str) -> bool:
    """Returns whether a character only says how others are drawn or joined."""
    return "\ufe00" <= character <= "\ufe0f" or unicodedata.category(character) == "Cf"


@cache
def _own_coverage() -> bytes:
    """Reads the font inside Pillow, which has little more than the letters of Western Europe."""
    return coverage_of(io.BytesIO(_pillows_font(16).font_bytes))


@lru_cache(maxsize=32)
def _font(path: Path | None, size: float) -> ImageFont.FreeTypeFont:
    if path is not None:
        try:
            return ImageFont.truetype(str(path), size)
        except OSError:
            logger.warning("%s is damaged: remove this font, or replace it.", path)
    return _pillows_font(size)


def _pillows_font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # as it is wherever FreeType is, as in wheels
    return font

"""Finds the characters that a font has. It reads only the table ``cmap``, since fonts are many.

The format is that of OpenType; https://learn.microsoft.com/typography/opentype/spec/cmap.
"""

from __future__ import annotations

import io
import struct
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np

# Code points that are read: those of all scripts, without the private ones behind them.
NUM_CODE_POINTS = 0x40000
# Platform and encoding of tables for Unicode, those with more characters first.
_UNICODE_TABLES = ((3, 10), (0, 6), (0, 4), (3, 1), (0, 3), (0, 2), (0, 1), (0, 0))
# No font has a larger table. The limit keeps damaged files from taking much memory.
_MAX_TABLE_BYTES = 2**24


@cache
def coverage_of_file(path: Path) -> bytes:
    """Reads the characters of a font file for ``has_character``.

    Of a collection, the first font is read. A file that can't be read, or that has only bitmaps,
    has no characters.
    """
    try:
        with path.open("rb") as file:
            return coverage_of(file)
    except (OSError, ValueError, IndexError, struct.error):
        return b""


def has_character(coverage: bytes, character: str) -> bool:
    """Returns whether a font has a character."""
    place, bit = divmod(ord(character), 8)
    return place < len(coverage) and bool(coverage[place] >> bit & 1)


def coverage_of(file: IO[bytes]) -> bytes:
    """Reads a font and returns a bit for each code point.

    Raises:
        ValueError, IndexError, struct.error: the file is not a font, or it is damaged.
    """
    tables = _tables(file)
    if not tables.keys() & {b"glyf", b"CFF ", b"CFF2"}:
        return b""
    start, length = tables[b"cmap"] if b"cmap" in tables else (0, 0)
    file.seek(start)
    table = file.read(min(length, _MAX_TABLE_BYTES))
    (count,) = struct.unpack_from(">H", table, 2)
    places = {
        (platform, encoding): place
        for platform, encoding, place in struct.iter_unpack(">HHI", table[4 : 4 + 8 * count])
    }
    known = np.zeros(NUM_CODE_POINTS, bool)
    for kind in _UNICODE_TABLES:
        if kind in places:
            _mark(table[places[kind] :], known)
            break
    return np.packbits(known, bitorder="little").tobytes()


def _tables(file: IO[bytes]) -> dict[bytes, tuple[int, int]]:
    """Reads where tables begin and how long they are, by name."""
    start = 0
    header = file.read(16)
    if header[:4] == b"ttcf":
        (start,) = struct.unpack_from(">I", header, 12)
        file.seek(start)
        header = file.read(16)
    if header[:4] not in (b"\0\1\0\0", b"OTTO", b"true"):
        raise ValueError("no font of outlines")
    (count,) = struct.unpack_from(">H", header, 4)
    file.seek(start + 12)
    records = struct.iter_unpack(">4sIII", file.read(16 * count))
    tables = {name: (place, length) for name, _, place, length in records}
    # Drawing with a file that ends early would fail.
    if max(map(sum, tables.values()), default=0) > file.seek(0, io.SEEK_END):
        raise ValueError("the file is truncated")
    return tables


def _mark(table: bytes, known: np.ndarray) -> None:
    """Sets the code points of a table of format 4 or 12."""
    (kind,) = struct.unpack_from(">H", table)
    if kind == 12:
        (count,) = struct.unpack_from(">I", table, 12)
        for first, last, _ in struct.iter_unpack(">III", table[16 : 16 + 12 * count]):
            known[first : last + 1] = True
    elif kind == 4:
        (double_count,) = struct.unpack_from(">H", table, 6)
        words = np.frombuffer(table[: len(table) // 2 * 2], ">u2").astype(np.int64)
        n = double_count // 2
        # After seven words: ends, a filler, starts, differences and places of glyphs.
        ends, starts, deltas = words[7 : 7 + n], words[8 + n : 8 + 2 * n], words[8 + 2 * n :][:n]
        offsets_at = 8 + 3 * n
        for i, (first, last, delta) in enumerate(zip(starts, ends, deltas, strict=True)):
            codes = np.arange(first, last + 1)
            offset = words[offsets_at + i]
            if offset:
                # Offsets count from their own place. Glyph 0 stands for missing characters.
                glyphs = words[offsets_at + i + offset // 2 + codes - first]
                known[codes] = glyphs != 0
            else:
                known[codes] = (codes + delta) % 0x10000 != 0

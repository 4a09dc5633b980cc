"""Names in any script: which font draws what, and what is said where none does."""

import io
import logging
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw

from detr_d2.visualization.fonts import Line, warn_of_missing
from detr_d2.visualization.fonts import font_files as files
from detr_d2.visualization.fonts import text_lines as lines
from detr_d2.visualization.fonts.font_coverage import coverage_of, coverage_of_file, has_character
from detr_d2.visualization.fonts.text_lines import runs_of

BUNDLED = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
DEJAVU = BUNDLED / "DejaVuSans.ttf"
CACHED = (files.font_files, lines._first_with, lines.warn_of_missing, lines._font, Line.of)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The only folder that has fonts; ``forget()`` before each change after the first look."""
    monkeypatch.setattr(files, "font_folders", lambda: [tmp_path])
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    for each in CACHED:
        each.cache_clear()


def make_font(path: Path, characters: str) -> None:
    """A font whose characters are squares of different sizes."""
    names = [".notdef", *(f"uni{ord(c):04X}" for c in characters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): n for c, n in zip(characters, names[1:], strict=True)})
    glyphs = {}
    for number, name in enumerate(names, start=1):
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for corner in ((0, 60 * number), (60 * number, 60 * number), (60 * number, 0)):
            pen.lineTo(corner)
        pen.closePath()
        glyphs[name] = pen.glyph()
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics({name: (1000, 0) for name in names})
    builder.setupHorizontalHeader(ascent=900, descent=-200)
    builder.setupOS2()
    builder.setupPost()
    builder.setupNameTable({"familyName": "Test", "styleName": "Regular"})
    builder.save(path)


def ink(text: str) -> np.ndarray:
    line = Line.of(text, 20)
    canvas = Image.new("L", (line.width + 4, line.ascent + line.descent))
    line.draw(ImageDraw.Draw(canvas), (0, 0), 255)
    return np.asarray(canvas)


@pytest.mark.parametrize("path", sorted(BUNDLED.glob("*.ttf")), ids=lambda path: path.stem)
def test_characters_of_fonts_are_those_that_another_reader_finds(path):
    coverage = coverage_of_file(path)
    with TTFont(path) as font:
        expected = font.getBestCmap() or {}
        glyphs = {font.getGlyphID(name) and code for code, name in expected.items()}
    found = {code for code in range(8 * len(coverage)) if has_character(coverage, chr(code))}
    if path.stem != "LastResortHE-Regular":  # of format 13, which says something else
        assert found == {code for code in glyphs if code and code < 0x40000}


def test_collections_and_high_code_points(tmp_path):
    make_font(tmp_path / "a.ttf", "a猫𠀀")
    font = (tmp_path / "a.ttf").read_bytes()
    # A collection of one font: its tables' places are those in the file.
    header = b"ttcf\0\1\0\0\0\0\0\1\0\0\0\x10"
    count = int.from_bytes(font[4:6], "big")
    moved = bytearray(font)
    for record in range(12, 12 + 16 * count, 16):
        place = int.from_bytes(font[record + 8 : record + 12], "big") + len(header)
        moved[record + 8 : record + 12] = place.to_bytes(4, "big")
    for content in (font, header + moved):
        coverage = coverage_of(io.BytesIO(content))
        assert [has_character(coverage, c) for c in "a猫𠀀b犬"] == [True] * 3 + [False] * 2


def test_files_that_are_no_fonts_have_no_characters(folder, tmp_path):
    font = DEJAVU.read_bytes()
    for number, content in enumerate((b"", b"no font", font[:40], font[:3000], font[:200_000])):
        (folder / f"dejavusans{number}.ttf").write_bytes(content)
    make_font(folder / "z.ttf", "cat")
    assert runs_of("cat") == [("cat", folder / "z.ttf")]
    assert ink("cat").any()


@pytest.mark.parametrize("name", ["Müller", "żółć", "кошка", "Ωμέγα", "cafe\u0301", ""])
def test_latin_cyrillic_and_greek_have_one_font(folder, caplog, name):
    shutil.copy(DEJAVU, folder)
    assert runs_of(f"3: {name} 90%") == [(f"3: {name} 90%", folder / "DejaVuSans.ttf")]
    warn_of_missing((name,))
    assert not caplog.records


def test_other_scripts_are_drawn_with_a_font_that_has_them(folder, caplog):
    shutil.copy(DEJAVU, folder)
    make_font(folder / "cjk.ttf", "猫犬")
    warn_of_missing(("猫", "кошка"))
    assert not caplog.records
    cjk, usual = folder / "cjk.ttf", folder / "DejaVuSans.ttf"
    assert runs_of("3: 猫犬 90%") == [("3: ", usual), ("猫犬", cjk), (" 90%", usual)]
    assert not np.array_equal(ink("猫"), ink("犬"))
    line = Line.of("3: 猫犬 90%", 20)
    assert line.width > Line.of("3:  90%", 20).width + 20
    # A font that has all of a text is taken for all of it.
    forget()
    make_font(folder / "whole.ttf", "猫犬 3:90%")
    assert runs_of("3: 猫犬 90%") == [("3: 猫犬 90%", folder / "whole.ttf")]


def test_one_warning_names_what_no_font_has(folder, caplog):
    shutil.copy(DEJAVU, folder)
    names = ("cat", "猫", "чёрная 猫犬", *(f"犬{number}" for number in range(9)))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            warn_of_missing(names)
    (record,) = caplog.records
    message = record.getMessage()
    assert "No font on this machine has 猫 of '猫', 猫犬 of 'чёрная 猫犬', 犬 of '犬0'" in message
    assert "characters of 6 more names" in message and "apt install" in message
    assert "cat" not in message
    assert ink("猫").any()  # a box


def test_without_any_font_pillows_own_is_taken(folder, caplog):
    assert runs_of("cat 90%") == [("cat 90%", None)]
    assert ink("cat 90%").any()
    warn_of_missing(("cat",))
    assert not caplog.records
    warn_of_missing(("кошка",))
    assert "кошка" in caplog.text


def test_invisible_characters_need_no_font(folder, caplog):
    shutil.copy(DEJAVU, folder)
    names = ("a\u200db", "a\ufe0f", "a\u3000b", "a\nb")
    warn_of_missing(names)
    assert not caplog.records
    for name in ("a\u3000b", "a\nb", "a\tb"):
        assert np.array_equal(ink(name), ink("a b"))


def test_plain_fonts_of_good_names_come_first(folder):
    names = [
        *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf"),
        *("NotoSansCJK-Regular.ttc", "sub/Zapf.otf", "DejaVuSans-Bold.ttf", "NotoSerif.ttf"),
    ]
    (folder / "sub").mkdir()
    for name in (*reversed(names), "LastResort.otf", "readme.txt"):
        (folder / name).touch()
    found = [path.relative_to(folder).as_posix() for path in files.font_files()]
    assert found[0] == names[0] and set(found) == set(names)
    assert found.index("DejaVuSans-Bold.ttf") > found.index("sub/Zapf.otf")
    assert found.index("NotoSerif.ttf") > found.index("NotoSansCJK-Regular.ttc")


def test_fonts_of_matplotlib_are_found_without_importing_it(monkeypatch):
    assert files.font_folders()[0] == BUNDLED
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert BUNDLED not in files.font_folders()

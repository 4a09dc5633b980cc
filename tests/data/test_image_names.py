"""One list of endings: what is read is found, and what is left out is named."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from detr_d2.data import image_names
from detr_d2.data.image_file import read_image
from detr_d2.data.image_names import describe_left_out, image_suffixes, visible_files, why_unread
from detr_d2.data.input_files import find_images
from detr_d2.data.prepare.source_files import pair_with_images

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.fixture
def anew():
    """Forgets what this installation reads, before and after a test that changes it."""
    caches = image_names.image_formats, image_names.image_suffixes
    for each in caches:
        each.cache_clear()
    yield
    for each in caches:
        each.cache_clear()


@pytest.fixture
def without_optional_formats(anew, monkeypatch):
    """As where Pillow is old and has no plugins."""
    for name in ("AVIF", "HEIF"):
        monkeypatch.delitem(Image.OPEN, name, raising=False)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)


def test_what_is_found_can_be_read(tmp_path):
    """Also by its ending in capitals, as cameras write it."""
    formats = Image.registered_extensions()
    for ending in image_suffixes():
        name = {".jfif": "JPEG", ".mpo": "JPEG"}.get(ending) or formats[ending]
        if name in Image.SAVE:
            path = tmp_path / f"a{ending.upper()}"
            mode = "1" if ending == ".pbm" else "L"
            Image.new(mode, (40, 30), 1).save(path, name)
            assert read_image(path, "RGB").shape == (30, 40, 3), ending
    found = find_images([str(tmp_path)])
    assert sorted(found) == sorted(tmp_path.iterdir()) and len(found) > 20


@pytest.mark.parametrize("ending", sorted(image_suffixes()))
def test_prediction_and_preparation_find_the_same(tmp_path, ending):
    for name in (f"a{ending}", "a.json"):
        (tmp_path / name).touch()
    assert find_images([str(tmp_path)]) == [tmp_path / f"a{ending}"]
    pairs = pair_with_images(tmp_path, (".json",), "", tmp_path, "")
    assert pairs.pairs == [(f"a{ending}", "a.json")]


def test_hidden_files_and_folders_are_no_data(tmp_path):
    hidden = [
        "._a.jpg",
        ".DS_Store",
        ".ipynb_checkpoints/a-checkpoint.jpg",
        "b/.thumbnails/x/a.jpg",
        "__MACOSX/a.jpg",
        "b/__MACOSX/b/._a.jpg",
    ]
    root = tmp_path / ".a folder may be named so"
    visible = [root / "a.jpg", root / "b" / "d.jpg"]
    for path in (*visible, *(root / name for name in hidden)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert visible_files(root) == visible
    for given in (root, root / "**"):
        assert find_images([str(given)]) == visible
    # What is asked for by its name is taken.
    assert find_images([str(root / "__MACOSX" / "*")]) == [root / "__MACOSX" / "a.jpg"]
    assert find_images([str(root / "._a.jpg")]) == [root / "._a.jpg"]


def test_what_is_left_out_is_named_in_one_line(without_optional_formats, tmp_path, caplog):
    names = [
        "a.jpg",
        "b.heic",
        "c.heic",
        "D.HEIC",
        "e.heic",
        "f.svg",
        "g.mp4",
        "notes.txt",
        "._h.heic",
    ]
    for name in names:
        (tmp_path / name).touch()
    assert find_images([str(tmp_path)]) == [tmp_path / "a.jpg"]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        f"{tmp_path}: 6 files left out: 4 .heic (D.HEIC, b.heic, c.heic, …); 1 .svg (f.svg); "
        "1 .mp4 (g.mp4). HEIF isn't read here: convert it to JPEG, or pip install pillow-heif."
    )
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"No images in .* 6 files left out: .*pillow-heif"):
        find_images([str(tmp_path)])


def test_nothing_is_said_where_nothing_is_left_out(tmp_path, caplog):
    for name in ("a.jpg", "b.json", "c", "d.jpg.txt"):
        (tmp_path / name).touch()
    assert find_images([str(tmp_path)]) and not caplog.records
    assert describe_left_out([Path("a.jpg"), Path("b")], image_suffixes()) == ""


def test_an_annotation_whose_image_is_not_read_says_so(without_optional_formats, tmp_path):
    for name in ("[a].json", "[a].HEIC"):
        (tmp_path / name).touch()
    (problem,) = pair_with_images(tmp_path, (".json",), "", tmp_path, "").problems
    assert "no image named" in problem and problem.endswith("or pip install pillow-heif")


@pytest.mark.parametrize(
    ("brand", "advice"), [(b"heic", "pip install pillow-heif"), (b"avif", "update Pillow")]
)
def test_files_of_other_formats_say_what_to_do(without_optional_formats, tmp_path, brand, advice):
    """Telephones' files are often named .jpg all the same."""
    path = tmp_path / "a.jpg"
    path.write_bytes(HEIC.replace(b"heic", brand) + bytes(100))
    with pytest.raises(ValueError, match=rf"a\.jpg: .*convert it to JPEG, or {advice}"):
        read_image(path, "RGB")


def test_a_plugin_that_is_there_is_used(without_optional_formats, monkeypatch, tmp_path):
    assert ".heic" not in image_suffixes() and "pillow-heif" in why_unread("a.HEIC")

    def register() -> None:
        def open_(file, _):
            return Image.new("RGB", (4, 3), (9, 9, 9))

        monkeypatch.setitem(Image.OPEN, "HEIF", (open_, lambda prefix: prefix[4:8] == b"ftyp"))

    monkeypatch.setattr(Image, "ID", [*Image.ID, "HEIF"])
    plugin = SimpleNamespace(register_heif_opener=register)
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    image_names.image_formats.cache_clear()
    image_names.image_suffixes.cache_clear()
    path = tmp_path / "a.heic"
    path.write_bytes(HEIC)
    assert find_images([str(tmp_path)]) == [path] and why_unread(path) == ""
    assert np.array_equal(read_image(path, "RGB"), np.full((3, 4, 3), 9))

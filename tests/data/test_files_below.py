"""File names of annotations, and the files that they mean."""

import unicodedata

import pytest

from detr_d2.data.files_below import find_below

COMPOSED = unicodedata.normalize("NFC", "straße/café.jpg")
DECOMPOSED = unicodedata.normalize("NFD", "straße/café.jpg")


def put(folder, name):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return str(path)


@pytest.mark.parametrize(
    ("on_disk", "named"),
    [
        ("sub/a.jpg", "sub\\a.jpg"),
        ("sub/deep/a.jpg", "sub\\deep/a.jpg"),
        (COMPOSED, DECOMPOSED),
        (DECOMPOSED, COMPOSED),
        (DECOMPOSED, COMPOSED.replace("/", "\\")),
        (COMPOSED.split("/")[0] + "/" + DECOMPOSED.split("/")[1], COMPOSED),
    ],
)
def test_the_name_of_the_file_that_is_meant_is_found(tmp_path, on_disk, named):
    assert on_disk != named
    path = put(tmp_path, on_disk)
    assert find_below(tmp_path, named, "x.json") == path


def test_a_file_of_just_this_name_comes_first(tmp_path):
    named = put(tmp_path, "sub\\a.jpg")
    put(tmp_path, "sub/a.jpg")
    assert find_below(tmp_path, "sub\\a.jpg", "x.json") == named
    composed, decomposed = put(tmp_path, COMPOSED), put(tmp_path, DECOMPOSED)
    assert find_below(tmp_path, COMPOSED, "x.json") == composed
    assert find_below(tmp_path, DECOMPOSED, "x.json") == decomposed


@pytest.mark.parametrize("name", ["none.jpg", "sub\\none.jpg", COMPOSED])
def test_what_is_not_there_keeps_its_name(tmp_path, name):
    assert find_below(tmp_path, name, "x.json") == f"{tmp_path}/{name}"


@pytest.mark.parametrize("name", ["..\\a.jpg", "sub\\..\\..\\a.jpg", "/a.jpg", "\\a.jpg", "", "."])
def test_names_that_leave_their_folder_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"x\.json: the file name .* leaves its folder"):
        find_below(tmp_path, name, "x.json")

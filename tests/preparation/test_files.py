"""Names from elsewhere."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_d2.preparation import PreparationError
from detr_d2.preparation.files import check_file_name, png_name

HOSTILE = [
    *("../a.jpg", "a/../../b.jpg", "..", ".", "/etc/a.jpg", "//host/a.jpg", "a//b.jpg", "a/"),
    *("C:/a.jpg", "c:a.jpg", "a\\..\\b.jpg", "\\\\host\\a.jpg", "./a.jpg", "a/./b.jpg"),
    *(
        "a\x00.jpg",
        "a\n.jpg",
        "\x1b[2J.jpg",
        "\ud800.jpg",
        "",
        None,
        3,
        ["a.jpg"],
        "ü" * 121,
        "a/" * 600 + "b",
    ),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_leave_the_folder_are_refused(name):
    with pytest.raises(PreparationError, match="the file name "):
        check_file_name(name)


@pytest.mark.parametrize("name", ["a.jpg", "a b/ü/c.d.jpeg", "...x", "a..b/c", "-rf"])
def test_ordinary_names(name):
    assert check_file_name(name) == name


@given(st.text("./\\:a b\x00\n\x7fü", max_size=12))
@settings(deadline=None, database=None, max_examples=300)
def test_checked_names_stay_in_the_folder(tmp_path_factory, name):
    try:
        check_file_name(name)
    except PreparationError:
        return
    root = tmp_path_factory.getbasetemp()
    path = (root / png_name(name, set())).resolve()
    assert path.is_relative_to(root.resolve()) and path != root.resolve()


def test_pngs_have_names_of_their_own():
    taken, names = set(), []
    for image in ["a.jpg", "a.png", "b/a.jpg", "A.JPG", "a.png.jpg", "a.JPG", "c.d.jpg"]:
        names.append(png_name(image, taken))
        taken.add(names[-1].lower())
    assert len(taken) == len(names)
    assert names[:3] == ["a.png", "a.png.png", "b/a.png"] and names[-1] == "c.d.png"

"""Names from elsewhere."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_d2.data.prepare import PreparationError
from detr_d2.data.prepare.source_files import (
    check_file_name,
    files_by_stem,
    found_name,
    pair_with_images,
    png_name,
)

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


@pytest.mark.parametrize(
    "name",
    [
        *("a.jpg", "a b/ü/c.d.jpeg", "...x", "a..b/c", "-rf", "a\\b.jpg"),
        "Screenshot 2024-05-01 at 9.41.00\u202fAM.png",
        *(
            "v\u00a013.jpg",
            "写真\u30001.jpg",
            "👩\u200d🔬.jpg",
            "Foto\u00adAlbum.jpg",
            "u\u0308.jpg",
        ),
    ],
)
def test_ordinary_names(name):
    assert check_file_name(name) == name


COMPOSED, APART = "M\u00fcnchen", "Mu\u0308nchen"


@pytest.fixture
def touch(tmp_path):
    """Makes empty files below tmp_path."""

    def run(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    return run


@pytest.mark.parametrize(
    ("asked", "on_disk", "found"),
    [
        ("a.jpg", [], "a.jpg"),
        (f"{COMPOSED}.jpg", [], f"{COMPOSED}.jpg"),
        (f"{COMPOSED}.jpg", [f"{APART}.jpg"], f"{APART}.jpg"),
        (f"{APART}.jpg", [f"{COMPOSED}.jpg"], f"{COMPOSED}.jpg"),
        (f"{APART}.jpg", [f"{COMPOSED}.jpg", f"{APART}.jpg"], f"{APART}.jpg"),
        (f"{APART}/{COMPOSED}.jpg", [f"{COMPOSED}/{APART}.jpg"], f"{COMPOSED}/{APART}.jpg"),
        (f"{APART}\\a.jpg", [f"{COMPOSED}/a.jpg"], f"{COMPOSED}/a.jpg"),
        ("b\\a.jpg", [], "b/a.jpg"),
        ("b\\a.jpg", ["b\\a.jpg", "b/a.jpg"], "b\\a.jpg"),
        (f"../{APART}.jpg", [f"../{COMPOSED}.jpg"], f"../{APART}.jpg"),
        ("ü\x00.jpg", [], "ü\x00.jpg"),
        ("ü" * 5000, [], "ü" * 5000),
    ],
)
def test_files_whose_names_are_spelt_otherwise(asked, on_disk, found, touch, tmp_path):
    touch("data/c/x.jpg", *(f"data/{name}" for name in on_disk))
    assert found_name(tmp_path / "data", asked) == found


@pytest.mark.parametrize("image", [COMPOSED, APART])
@pytest.mark.parametrize("annotation", [COMPOSED, APART])
def test_annotations_find_images_whose_accents_are_composed_otherwise(
    image, annotation, touch, tmp_path
):
    touch(f"images/{image}/{image}.jpg", f"json/{annotation}/{annotation}.json", "images/b.jpg")
    pairs = pair_with_images(tmp_path / "json", (".json",), "", tmp_path / "images", "")
    assert pairs.pairs == [(f"{image}/{image}.jpg", f"{annotation}/{annotation}.json")]
    assert pairs.problems == []
    assert pairs.notes == ["1 images have no annotation, the first is b.jpg"]


def test_hidden_files_and_folders_are_passed_over(touch, tmp_path):
    hidden = [
        ".ipynb_checkpoints/a.png",
        "__MACOSX/._a.png",
        "__MACOSX/a.png",
        "._a.png",
        "b/.a.png",
    ]
    touch(*(f".cache/data/{name}" for name in ["a.png", "b/a.png", *hidden]))
    assert files_by_stem(tmp_path / ".cache/data", (".png",)) == {
        "a": ["a.png"],
        "b/a": ["b/a.png"],
    }


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

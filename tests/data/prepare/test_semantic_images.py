"""Semantic PNGs alone."""

import json

import numpy as np
import pytest
from PIL import Image

from detr_d2.data.prepare import PreparationError, prepare_semantic

STUFF = [{"id": 0, "name": "water"}, {"id": 7, "name": "sky", "isthing": 0}]
VALUES = np.array([[0, 7, 7, 255], [0, 0, 7, 3]])


@pytest.fixture
def prepare(write_json, write_png, tmp_path):
    """Writes PNGs of values, images of their sizes, and the dataset."""

    def run(values, categories=STUFF, dtype=np.uint8, **options):
        for name, pixels in values.items():
            write_png(f"semantic/{name}.png", pixels, dtype)
            write_png(f"images/{name}.bmp", np.zeros_like(pixels))
        file = write_json("categories.json", categories)
        folders = tmp_path / "semantic", tmp_path / "out"
        return prepare_semantic(*folders, images=tmp_path / "images", categories=file, **options)

    return run


def segment(values, *of) -> list:
    return np.isin(values, of).astype(int).tolist()


def test_stuff_alone(prepare, read_back, tmp_path):
    empty = np.full((2, 2), 255)
    values = {"a": VALUES, "deep/er/a": VALUES.T, "deep/empty": empty}
    report = prepare(values, ignore=[3, 255])
    assert (report.images, report.segments, report.left_out) == (3, 4, [])
    assert read_back(tmp_path / "out") == {
        "a.bmp": [(0, 0, segment(VALUES, 0)), (7, 0, segment(VALUES, 7))],
        "deep/er/a.bmp": [(0, 0, segment(VALUES.T, 0)), (7, 0, segment(VALUES.T, 7))],
        "deep/empty.bmp": [],
    }


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_mapping(dtype, prepare, read_back, write_json, tmp_path):
    values = VALUES + (60_000 if dtype == np.uint16 else 0)
    low = int(values.min())
    pairs = {low: 7, low + 7: 7, low + 3: 0, low + 255: None}
    mapping = write_json("mapping.json", {str(key): value for key, value in pairs.items()})
    prepare({"a": values}, dtype=dtype, mapping=mapping)
    expected = [(7, 0, segment(VALUES, 0, 7)), (0, 0, segment(VALUES, 3))]
    assert read_back(tmp_path / "out") == {"a.bmp": expected}


def test_palettes_are_class_ids(prepare, read_back, tmp_path):
    prepare({"a": np.zeros((2, 4))})
    image = Image.fromarray(np.where(VALUES > 7, 0, VALUES).astype(np.uint8), "P")
    image.putpalette([9, 9, 9] * 8)
    image.save(tmp_path / "semantic" / "a.png")
    (tmp_path / "out").rename(tmp_path / "old")
    prepare_semantic(
        tmp_path / "semantic",
        tmp_path / "out",
        images=tmp_path / "images",
        categories=tmp_path / "categories.json",
        ignore=[3],
    )
    expected = [(0, 0, segment(VALUES, 0, 255)), (7, 0, segment(VALUES, 7))]
    assert read_back(tmp_path / "out") == {"a.bmp": expected}


def test_components_become_instances(prepare, read_back, tmp_path):
    values = np.array([[3, 0, 3], [0, 0, 0], [3, 3, 7]])
    prepare({"a": values}, [*STUFF, {"id": 3, "name": "ball"}], things=[3])
    left, right = np.zeros_like(values), np.zeros_like(values)
    left[0, 0] = right[0, 2] = 1
    things = [left, right, segment(values, 3) - left - right]
    segments = read_back(tmp_path / "out")["a.bmp"]
    assert sorted(segments) == sorted(
        [(0, 0, segment(values, 0)), (7, 0, segment(values, 7))]
        + [(3, 0, mask.tolist()) for mask in things]
    )
    written = json.loads((tmp_path / "out" / "panoptic.json").read_text())["categories"]
    assert [category["isthing"] for category in written] == [0, 0, 1]


CRUMBS = np.array([[3, 0, 3, 3, 0, 3], [0, 0, 3, 3, 0, 0], [0, 0, 3, 0, 0, 3]])


@pytest.mark.parametrize(
    ("crumbs", "kept", "said"),
    [
        ("void", [(3, 0, 5)], "4 of them are smaller than --min-area and became void"),
        ("crowd", [(3, 0, 5), (3, 1, 3)], "4 of them are smaller than --min-area and became cr"),
    ],
)
def test_crumbs_become_void_or_crowds(crumbs, kept, said, prepare, read_back, tmp_path):
    categories = [{"id": 0, "name": "water"}, {"id": 3, "name": "ball"}]
    options = {"things": [3], "min_area": 2, "crumbs": crumbs}
    report = str(prepare({"a": CRUMBS, "b": CRUMBS.T[:1]}, categories, **options))
    assert f"5 connected components of things were found\n{said}" in report
    segments = read_back(tmp_path / "out")["a.bmp"]
    assert [(c, crowd, np.sum(mask)) for c, crowd, mask in segments if c] == kept


def test_crumbs_are_counted_where_nothing_is_asked_for(prepare):
    categories = [{"id": 0, "name": "water"}, {"id": 3, "name": "ball"}]
    said = str(prepare({"a": CRUMBS}, categories, things=[3]))
    assert "4 connected components of things were found\n3 of them have fewer than 5" in said
    assert "--min-area N" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_area": 3}, "name the categories with --things"),
        ({"things": [7], "min_area": -1}, "not -1 and void"),
        ({"things": [7], "crumbs": "gone"}, "void or crowd, not 0 and gone"),
    ],
)
def test_least_areas_that_are_refused(options, said, prepare):
    with pytest.raises(PreparationError, match=said):
        prepare({"a": [[7]]}, **options)


def test_names_with_suffixes(prepare, read_back, write_png, tmp_path):
    write_png("semantic/x/a_labels.png", VALUES)
    write_png("semantic/x/a_color.png", VALUES)
    write_png("semantic/x/._a_labels.png", VALUES)
    write_png("images/x/a_photo.tif", VALUES)
    suffixes = {"png_suffix": "_labels", "image_suffix": "_photo"}
    prepare({}, ignore=[3, 255], **suffixes)
    assert list(read_back(tmp_path / "out")) == ["x/a_photo.tif"]


def test_unknown_values(prepare, tmp_path):
    with pytest.raises(PreparationError) as caught:
        prepare({"a": VALUES, "b": [[7]]}, ignore=[255])
    said = (
        f"{tmp_path / 'semantic' / 'a.png'}: a pixel has the value 3, which stands for no category"
    )
    assert said in str(caught.value) and "--ignore 3" in str(caught.value)
    report = prepare({}, ignore=[255], skip_errors=True)
    assert report.images == 1 and report.left_out == [str(caught.value)]


def test_images_without_a_png_are_noted_and_pngs_without_an_image_wrong(prepare, write_png):
    write_png("images/c.png", [[1]])
    report = prepare({"a": [[7]]})
    assert report.left_out == [] and report.notes == (
        ["1 images have no annotation, the first is c.png"]
    )


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["semantic/b.png"], r"semantic/b\.png: no image named .*images/b\.\*"),
        (["semantic/b.png", "images/b.png", "images/b.tif"], r"several images: b\.png, b\.tif"),
        (["semantic/b.png", "semantic/b.tif", "images/b.png"], "b.png and b.tif are of the same"),
    ],
)
def test_files_that_have_no_partner(files, said, prepare, write_png):
    for file in files:
        write_png(file, [[7]])
    with pytest.raises(PreparationError, match=said):
        prepare({"a": [[7]]})
    report = prepare({}, skip_errors=True)
    assert len(report.left_out) == report.images == 1


def test_sizes_that_disagree(prepare, write_png):
    write_png("images/a.png", [[1, 1]])
    write_png("semantic/a.png", [[7]])
    with pytest.raises(PreparationError, match=r"a\.png has 1×1 pixels, its image 2×1"):
        prepare({})


def test_things_need_to_be_named(prepare):
    cat = {"id": 1, "name": "cat", "isthing": 1}
    with pytest.raises(PreparationError, match=r"category 1 is a thing.*\(--things 1\)"):
        prepare({"a": [[1]]}, [cat])
    with pytest.raises(PreparationError, match="no category has the id 5"):
        prepare({"a": [[1]]}, [cat], things=[1, 5])


@pytest.mark.parametrize("content", [[7], {"x": 7}, {"1": 8}, {"1": "7"}, {"1": True}, {"-1": 7}])
def test_broken_mappings(content, prepare, write_json):
    with pytest.raises(PreparationError, match=r"mapping\.json: has to be"):
        prepare({"a": [[7]]}, mapping=write_json("mapping.json", content))


def test_folders_that_are_not_there(prepare, tmp_path):
    with pytest.raises(NotADirectoryError, match="There is no folder .*semantic"):
        prepare({})
    (tmp_path / "semantic").mkdir()
    with pytest.raises(PreparationError, match="no file in it or below ends in .png or .tif"):
        prepare({})

"""LabelMe's JSONs."""

import json

import numpy as np
import pytest

from detr_d2.data.prepare import PreparationError, prepare_labelme

HEIGHT, WIDTH = 8, 10


def shape(label, points, shape_type="rectangle", group_id=None) -> dict:
    return {
        "label": label,
        "points": points,
        "shape_type": shape_type,
        "group_id": group_id,
        "flags": {},
    }


def box(x0, y0, x1, y1) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), int)
    mask[y0:y1, x0:x1] = 1
    return mask


@pytest.fixture
def write(write_json, write_png):
    """Writes an image and its JSON."""

    def run(name, shapes, **more):
        write_png(f"data/{name}.png", np.zeros((HEIGHT, WIDTH)))
        size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
        return write_json(f"data/{name}.json", {"shapes": shapes, **size, **more})

    return run


@pytest.fixture
def prepare(tmp_path):
    return lambda **options: prepare_labelme(tmp_path / "data", tmp_path / "out", **options)


def names(tmp_path) -> list:
    written = json.loads((tmp_path / "out" / "panoptic.json").read_text())["categories"]
    return [(category["id"], category["name"], category["isthing"]) for category in written]


def test_shapes_groups_and_stuff(write, prepare, read_back, tmp_path):
    triangle = [[0, 0], [4, 0], [4, 4], [0, 4]]
    shapes = [
        shape("sky", [[0, 0], [10, 5]]),
        shape("cat", [[9, 8], [7, 6]], group_id=1),  # from any corner to the other
        shape("cat", [[5, 6], [6, 8]], group_id=1),
        shape("cat", [[3, 6], [4, 8]], group_id=2),
        shape("dog", [[0, 6], [1, 8]], group_id=1),
        {"label": "dog", "points": triangle},  # as LabelMe's first versions
        shape("sky", [[0, 7], [10, 8]]),
    ]
    write("a", shapes, imageData="x" * 99, imagePath="..\\..\\evil.png")
    write("sub/a", [shape("cow", [[1, 1], [3, 3]])])
    write("sub/empty", [])
    report = prepare(stuff=["sky"])
    assert (report.images, report.segments, report.left_out) == (3, 6, [])
    assert names(tmp_path) == [(1, "sky", 0), (2, "cat", 1), (3, "dog", 1), (4, "cow", 1)]
    cats = box(7, 6, 9, 8) + box(5, 6, 6, 8), box(3, 6, 4, 8)
    dogs = box(0, 6, 1, 8), box(0, 0, 4, 4)
    sky = (box(0, 0, 10, 5) + box(0, 7, 10, 8)) * (1 - sum(cats) - sum(dogs))
    found = [(1, sky), (2, cats[0]), (2, cats[1]), (3, dogs[0]), (3, dogs[1])]
    assert read_back(tmp_path / "out") == {
        "a.png": [(category_id, 0, mask.tolist()) for category_id, mask in found],
        "sub/a.png": [(4, 0, box(1, 1, 3, 3).tolist())],
        "sub/empty.png": [],
    }


def test_circles(write, prepare, read_back, tmp_path):
    write("a", [shape("ball", [[4, 4], [4, 6.5]], "circle")])
    prepare()
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = np.hypot(x - 4, y - 4) <= 2.5
    assert 12 < inside.sum() < 24
    assert read_back(tmp_path / "out")["a.png"] == [(1, 0, inside.astype(int).tolist())]


def test_categories_of_a_file(write, prepare, write_json, tmp_path, categories):
    categories[3]["isthing"] = 0
    write("a", [shape("dog", [[0, 0], [5, 5]])])
    prepare(categories=write_json("categories.json", categories), stuff=["dog"])
    assert names(tmp_path) == [(1, "cat", 1), (2, "dog", 0), (7, "sky", 0), (9, "grass", 0)]


def test_images_elsewhere(write, prepare, read_back, tmp_path):
    write("sub/a", [shape("dog", [[0, 0], [5, 5]])])
    (tmp_path / "data/sub/a.png").rename(tmp_path / "a.png")
    with pytest.raises(PreparationError, match=r"a\.json: no image named .*a\.\*"):
        prepare()
    (tmp_path / "images/sub").mkdir(parents=True)
    (tmp_path / "a.png").rename(tmp_path / "images/sub/a.png")
    prepare(images=tmp_path / "images")
    assert list(read_back(tmp_path / "out")) == ["sub/a.png"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (shape("cat", [[0, 0], [5, 5]], "line"), "its type is 'line'; only polygon, rect"),
        (shape("cat", [[0, 0]] * 4, "cuboid"), "circle and mask have an area here"),
        (shape("cat", [[0, 0], [5, 0], [5, 5]], "rotation"), "a rotation of 3 points; it needs 4"),
        (shape("cat", [[0, 0]], "point"), "its type is 'point'"),
        (shape("cat", [[0, 0], [5, 5]], "mask"), "it has no mask: a PNG in base64"),
        (shape("cat", [[0, 0], [5, 5]], ["circle"]), "its type is ['circle']"),
        (shape("cat", [[0, 0], [5, 5]], "polygon"), "a polygon of 2 points"),
        (shape("cat", [[0, 0], [5, 5], [1, 1]]), "a rectangle of 3 points; it needs 2 or 4"),
        (shape("cat", [[0, 0]], "circle"), "a circle of 1 points"),
        (shape("cat", [[0, 0], [5, "x"]]), "pairs of numbers"),
        (shape("cat", None), "pairs of numbers"),
        (shape("cat", [[0, 0], [float("inf"), 5]], "circle"), "far outside"),
        (shape("cat", [[0, 0], [5, 1e9]]), "far outside"),
        (shape(["cat"], [[0, 0], [5, 5]]), "no category has the name"),
        (shape("  ", [[0, 0], [5, 5]]), "no category has the name"),
        ({}, "no category has the name"),
    ],
)
def test_broken_shapes(broken, said, write, prepare, read_back, tmp_path):
    path = write("a", [shape("cat", [[0, 0], [5, 5]]), broken])
    with pytest.raises(PreparationError) as caught:
        prepare()
    assert f"{path}: shape number 1 (" in str(caught.value) and said in str(caught.value)
    report = prepare(skip_errors=True)
    assert report.left_out == [str(caught.value)]
    assert read_back(tmp_path / "out")["a.png"] == [(1, 0, box(0, 0, 5, 5).tolist())]


@pytest.mark.parametrize(
    "content", ["", "[1]", "[" * 100_000, '{"shapes": 3}', '{"shapes": [3]}', "\udce4"]
)
def test_broken_files(content, write, prepare, tmp_path):
    write("a", [shape("cat", [[0, 0], [5, 5]])])
    path = write("b", [])
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(
        PreparationError, match=r"b\.json: (cannot be read as JSON|no JSON of LabelMe)"
    ):
        prepare()
    report = prepare(skip_errors=True)
    assert report.images == len(report.left_out) == 1


@pytest.mark.parametrize("size", [{"imageHeight": 9}, {"imageWidth": "10"}])
def test_sizes_that_disagree(size, write, prepare):
    write("a", [shape("cat", [[0, 0], [5, 5]])], **size)
    with pytest.raises(PreparationError, match="pixels, its image has 10×8"):
        prepare()


def test_a_size_may_be_missing(write, prepare):
    write("a", [shape("cat", [[0, 0], [5, 5]])], imageHeight=None, imageWidth=None)
    assert prepare().images == 1


def test_stuff_has_to_be_there(write, prepare):
    write("a", [shape("cat", [[0, 0], [5, 5]])])
    with pytest.raises(PreparationError, match="'cta' is to be stuff, but is no label"):
        prepare(stuff=["cta"])


def test_spaces_at_the_ends_of_labels_go(write, prepare, read_back, tmp_path):
    write("a", [shape("cat ", [[0, 0], [2, 2]]), shape("cat", [[5, 5], [7, 7]])])
    write("b", [shape("cat ", [[0, 0], [2, 2]]), shape("Cat", [[5, 5], [7, 7]])])
    report = prepare()
    assert names(tmp_path) == [(1, "cat", 1), (2, "Cat", 1)]
    assert "2 shapes of 'cat ' are 'cat'" in report.notes
    assert any(note.startswith("'cat' and 'Cat' differ by case") for note in report.notes)
    assert [str(count) for count in report.classes] == [
        "'cat' (thing): 3 segments in 2 images",
        "'Cat' (thing): 1 segments in 1 images",
    ]


def test_spaces_matter_where_categories_have_them(write, prepare, write_json, tmp_path):
    write("a", [shape(f"cat{end}", [[0, 0], [2, 2]]) for end in ("", " ", "  ")])
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat "}]
    report = prepare(categories=write_json("categories.json", categories), skip_errors=True)
    assert names(tmp_path) == [(1, "cat", 1), (2, "cat ", 1)]
    assert "1 shapes of 'cat  ' are 'cat'" in report.notes


def test_ignored_labels_are_void(write, prepare, read_back, tmp_path):
    shapes = [
        shape("cat", [[0, 0], [6, 6]]),
        shape("_background_", [[1, 1], [3, 3]]),
        shape("sky", [[8, 0], [10, 8]]),
        shape("sky", [[6, 0], [7, 2]]),
        shape("__ignore__ ", [[5, 0], [9, 3]]),  # smaller than cat and one sky, not the other
    ]
    write("a", shapes)
    assert "'__ignore__' and '_background_' are classes as others are; --ignore" in str(prepare())
    (tmp_path / "out").rename(tmp_path / "old")
    report = prepare(stuff=["sky"], ignore=["_background_", "__ignore__", "typo"])
    assert names(tmp_path) == [(1, "cat", 1), (2, "sky", 0)]
    cat = box(0, 0, 6, 6) - box(1, 1, 3, 3) - box(5, 0, 6, 3)
    sky = box(8, 0, 10, 8) - box(8, 0, 9, 3) + box(6, 0, 7, 2)
    assert read_back(tmp_path / "out")["a.png"] == [(1, 0, cat.tolist()), (2, 0, sky.tolist())]
    assert "2 shapes are void, as their labels are ignored" in str(report)
    assert "'typo' is to be ignored, but no shape has this label" in report.notes


def test_a_background(write, prepare, read_back, tmp_path):
    write("a", [shape("cat", [[0, 0], [5, 5]]), shape("x", [[4, 4], [7, 6]])])
    prepare(background="floor", ignore=["x"])
    void = box(4, 4, 7, 6)
    cat = box(0, 0, 5, 5) - box(4, 4, 5, 5)
    floor = (2, 0, (1 - cat - void).tolist())
    assert read_back(tmp_path / "out")["a.png"] == [floor, (1, 0, cat.tolist())]


def test_labels_are_needed(write, prepare):
    write("a", [])
    with pytest.raises(PreparationError, match="no shape has a label"):
        prepare()

"""Pixels of category·1000 + instance."""

import json

import numpy as np
import pytest
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES

from detr_d2.data.prepare import PreparationError, prepare_cityscapes
from detr_d2.data.prepare.cityscapes_classes import cityscapes_categories


@pytest.fixture
def prepare(write_png, tmp_path):
    def run(values, dtype=np.uint16, ending="png", **options):
        write_png(f"gt/aachen/a_1_gtFine_instanceIds.{ending}", values, dtype)
        write_png("gt/aachen/a_1_gtFine_labelIds.png", [[1]])
        write_png("images/aachen/a_1_leftImg8bit.png", np.zeros(np.shape(values)))
        out = tmp_path / "out"
        return prepare_cityscapes(tmp_path / "gt", out, images=tmp_path / "images", **options)

    return run


def mask(values, value) -> list:
    return (values == value).astype(int).tolist()


def test_cityscapes_as_it_comes(prepare, read_back, tmp_path):
    """Cars and a crowd of cars, road, a caravan (not evaluated) and what is out of the image."""
    values = np.array([[26_000, 26_001, 26, 26], [7, 7, 29_000, 3], [0, 26_001, 7, 33_010]])
    report = prepare(values)
    assert (report.images, report.segments, report.crowds) == (1, 5, 1)
    assert read_back(tmp_path / "out")["aachen/a_1_leftImg8bit.png"] == [
        (7, 0, mask(values, 7)),
        (26, 1, mask(values, 26)),
        (26, 0, mask(values, 26_000)),
        (26, 0, mask(values, 26_001)),
        (33, 0, mask(values, 33_010)),
    ]
    categories = json.loads((tmp_path / "out" / "panoptic.json").read_text())["categories"]
    assert len(categories) == 19 and sum(category["isthing"] for category in categories) == 8


@pytest.mark.parametrize(("dtype", "ending"), [(np.uint16, "png"), (np.int32, "tif")])
def test_own_categories(dtype, ending, prepare, read_back, write_json, tmp_path, categories):
    """Instances of stuff are one segment; 32 bits have room for categories above 65."""
    cow = 65 if dtype == np.uint16 else 400
    file = write_json("categories.json", [*categories, {"id": cow, "name": "cow", "isthing": 1}])
    values = np.array([[7, 7001, 7002, 1], [2000, cow * 1000 + 7, 0, 3004]])
    prepare(values, dtype, ending, categories=file, ignore=[0, 3])
    assert read_back(tmp_path / "out")["aachen/a_1_leftImg8bit.png"] == [
        (1, 1, mask(values, 1)),
        (7, 0, mask(values // 1000 + values % 1000 * (values < 1000), 7)),
        (2, 0, mask(values, 2000)),
        (cow, 0, mask(values, cow * 1000 + 7)),
    ]


@pytest.mark.parametrize("value", [3, 3004])
def test_unknown_categories(value, prepare, write_json, categories):
    file = write_json("categories.json", categories)
    with pytest.raises(PreparationError, match=rf"has the value {value}, .* --ignore 3 makes"):
        prepare([[value]], categories=file)


def test_categories_have_to_say_what_is_a_thing(prepare, write_json):
    file = write_json("categories.json", [{"id": 1, "name": "cat"}])
    with pytest.raises(PreparationError, match="a category .* has no 'isthing'.*'id': 1"):
        prepare([[1]], categories=file)


def test_values_below_0(prepare):
    with pytest.raises(PreparationError, match="has the value -1, below 0"):
        prepare([[-1]], np.int32, "tif")


def test_sizes_that_disagree(prepare, write_png):
    write_png("gt/b_gtFine_instanceIds.png", [[7]])
    write_png("images/b_leftImg8bit.png", [[7, 7]])
    with pytest.raises(PreparationError, match="has 1×1 pixels, its image 2×1"):
        prepare([[7]])


def test_the_classes_are_detectron2s():
    theirs = [
        {**{key: entry[key] for key in ("id", "name", "isthing")}, "color": list(entry["color"])}
        for entry in CITYSCAPES_CATEGORIES
    ]
    assert cityscapes_categories() == theirs

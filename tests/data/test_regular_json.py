"""The fast way to read a panoptic JSON gives what the other one gives, or leaves it to that one."""

import copy
import gc
import json

import pytest

from detr_d2.data import panoptic_json
from detr_d2.data.panoptic_json import read_categories, read_panoptic_json, set_panoptic_metadata
from detr_d2.data.regular_json import read_outline, read_regular
from detr_d2.file_io import without_garbage_collection

pytestmark = pytest.mark.usefixtures("registry")

NAME = "regular_json_test"


def segment(id_, category_id, **changes):
    return {
        **{"id": id_, "category_id": category_id, "iscrowd": 0},
        **{"bbox": [0, 0, 2.5, 2], "area": 4, **changes},
    }


@pytest.fixture
def regular(categories) -> dict:
    """Three images, two of them annotated, in another order."""
    return {
        "info": {"year": 2026},
        "images": [
            {"id": i, "file_name": name, "height": 4, "width": 6, "license": 1}
            for i, name in ((3, "a.jpg"), (2, "sub/b.jpg"), (9, "c.jpg"))
        ],
        "annotations": [
            {
                "image_id": 2,
                "file_name": "sub/b.png",
                "segments_info": [segment(5, 9, iscrowd=1), segment(2**24 - 1, 40)],
            },
            {"image_id": 3, "file_name": "a.png", "segments_info": []},
        ],
        "categories": categories,
    }


@pytest.fixture
def read_both(tmp_path, categories, write, monkeypatch):
    """Reads content in the fast way (None if it is left to the other), and in the other way.

    Errors are given as their messages.
    """

    def read(content):
        path = write(tmp_path, content)
        roots = (tmp_path / "images", tmp_path / "pngs")
        metadata = set_panoptic_metadata(NAME, categories)
        things = metadata.thing_dataset_id_to_contiguous_id
        contiguous = {**things, **metadata.stuff_dataset_id_to_contiguous_id}
        fast = read_regular(path, *roots, contiguous, things)
        with monkeypatch.context() as patched:
            patched.setattr(panoptic_json, "read_regular", lambda *_: None)
            try:
                return fast, read_panoptic_json(path, *roots, metadata)
            except ValueError as error:
                return fast, str(error)

    return read


def test_a_regular_file(regular, read_both, caplog):
    fast, other = read_both(regular)
    assert fast.dicts == other and fast.num_images == 3
    assert [list(record) for record in fast.dicts] == [list(record) for record in other]
    assert "1 of 3 images have no annotation" in caplog.text


def change_segment(**changes):
    def change(content):
        content["annotations"][0]["segments_info"][0].update(changes)

    return change


def change_entry(list_name, **changes):
    def change(content):
        content[list_name][0].update(changes)

    return change


def drop(list_name, key):
    def change(content):
        entry = content[list_name][0]
        del (entry["segments_info"][0] if key in entry.get("segments_info", [{}])[0] else entry)[
            key
        ]

    return change


def repeat(list_name):
    def change(content):
        content[list_name].append(copy.deepcopy(content[list_name][0]))

    return change


# Whether the other way reads the file, too.
@pytest.mark.parametrize(
    ("change", "is_right"),
    [
        (change_segment(score=0.5), True),
        (change_segment(iscrowd=True), True),
        (change_segment(id="5"), True),
        (change_segment(category_id="9"), True),
        (drop("annotations", "bbox"), True),
        (drop("annotations", "area"), True),
        (drop("annotations", "iscrowd"), True),
        (change_entry("images", height="4"), True),
        (change_segment(id=0), False),
        (change_segment(id=2**24), False),
        (change_segment(id=2**24 - 1), False),
        (change_segment(category_id=10), False),
        (change_segment(iscrowd=2), False),
        (change_segment(id=None), False),
        (drop("annotations", "category_id"), False),
        (drop("annotations", "image_id"), False),
        (drop("images", "width"), False),
        (change_entry("images", height=0), False),
        (change_entry("images", id=2**63), False),
        (change_entry("images", file_name="../a.jpg"), False),
        (change_entry("images", file_name=""), False),
        (change_entry("annotations", file_name="/a.png"), False),
        (change_entry("annotations", image_id=4), False),
        (change_entry("annotations", segments_info={}), False),
        (repeat("images"), False),
        (repeat("annotations"), False),
    ],
)
def test_whatever_is_unusual_is_left_to_the_other_way(regular, read_both, change, is_right):
    change(regular)
    fast, other = read_both(regular)
    assert fast is None
    assert isinstance(other, list) == is_right, other


def test_ids_of_images_as_texts(regular, read_both):
    for image in regular["images"]:
        image["id"] = str(image["id"])
    for annotation in regular["annotations"]:
        annotation["image_id"] = str(annotation["image_id"])
    fast, other = read_both(regular)
    assert fast is None and len(other) == 2


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "{", '{"images": [NaN]}', "\ufeff{}", "[" * 10000]
)
def test_other_files_are_left_to_the_other_way(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    assert read_outline(path) is None
    assert read_regular(path, tmp_path, tmp_path, {}, {}) is None


def test_the_outline_has_the_categories_alone(regular, tmp_path, write):
    outline = read_outline(write(tmp_path, regular))
    assert outline == {"images": [], "annotations": [], "categories": regular["categories"]}


@pytest.mark.parametrize(
    "change",
    [
        repeat("categories"),  # which of them is used, only segments tell
        lambda content: content["categories"].append("cat"),
        lambda content: content.update(images={}),
        lambda content: content.update(annotations=[{"image_id": 2, "category_id": 9}]),
    ],
)
def test_files_without_an_outline(regular, tmp_path, write, change):
    change(regular)
    assert read_outline(write(tmp_path, regular)) is None


def test_registering_builds_no_segment(regular, tmp_path, write, monkeypatch):
    """COCO's has 1.3 million, which a process that only predicts never needs."""
    path = write(tmp_path, regular)
    monkeypatch.setattr(panoptic_json, "read_panoptic_lists", lambda _: pytest.fail("read whole"))
    assert [c["id"] for c in read_categories(path)] == [c["id"] for c in regular["categories"]]


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_collected_again_afterwards(enabled):
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(json.JSONDecodeError), without_garbage_collection():
            assert not gc.isenabled()
            json.loads("{")
        assert gc.isenabled() == enabled
    finally:
        gc.enable()

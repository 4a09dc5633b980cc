"""COCO's panoptic JSON: what is derived from its categories, and what is refused, by name."""

from collections.abc import Callable

import pytest
from detectron2.data import Metadata, MetadataCatalog
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_d2.data.categories import PanopticClasses
from detr_d2.data.panoptic_json import read_categories, set_panoptic_metadata

pytestmark = pytest.mark.usefixtures("registry")

NAME = "panoptic_json_test"


def test_contiguous_ids_count_things_first(categories):
    metadata = set_panoptic_metadata(NAME, categories, evaluator_type="x")
    assert isinstance(metadata, Metadata) and metadata is MetadataCatalog.get(NAME)
    assert metadata.thing_dataset_id_to_contiguous_id == {9: 0, 70: 1}
    assert metadata.stuff_dataset_id_to_contiguous_id == {3: 2, 40: 3}
    assert metadata.thing_classes == metadata.stuff_classes == ["cat", "dog", "sky", "grass"]
    assert metadata.thing_colors[3] == metadata.stuff_colors[3] == [1, 2, 3]
    assert metadata.evaluator_type == "x"


@pytest.mark.parametrize("isthing", [0, 1])
def test_things_alone_and_stuff_alone(categories, isthing):
    chosen = [category for category in categories if category["isthing"] == isthing]
    classes = PanopticClasses.from_metadata(set_panoptic_metadata(NAME, chosen))
    assert classes.names == (("cat", "dog") if isthing else ("sky", "grass"))
    assert classes.is_thing == (bool(isthing),) * 2


def test_categories_may_be_ints_or_bools(tmp_path, categories, content, write):
    given = [{**categories[0], "isthing": False}, {**categories[1], "isthing": True}]
    given += categories[2:]
    assert read_categories(write(tmp_path, content(categories=given))) == [
        {**category, "isthing": bool(category["isthing"])} for category in categories
    ]


@given(st.lists(st.booleans(), min_size=1, max_size=300))
@settings(deadline=None, database=None, max_examples=20)
def test_colors_are_given_or_made_and_never_twice(tmp_path_factory, content, write, colored):
    """Made ones are the same each time, also beside a given colour that would be the first made."""
    categories = [
        {"id": i, "name": str(i), "isthing": 1} | ({"color": [i % 256, i // 256, 0]} if c else {})
        for i, c in enumerate(colored)
    ]
    categories[0]["color"] = [242, 24, 24]
    path = write(tmp_path_factory.mktemp("colors"), content(categories=categories))
    colors = [category["color"] for category in read_categories(path)]
    assert len(set(map(tuple, colors))) == len(colors)
    assert all(0 <= value <= 255 for color in colors for value in color)
    assert all(c.get("color", made) == made for c, made in zip(categories, colors, strict=True))
    assert [category["color"] for category in read_categories(path)] == colors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"isthing": "1"}, "must have 'isthing': 1 or true"),
        ({"isthing": 2}, "must have 'isthing'"),
        ({"isthing": 1.0}, "must have 'isthing'"),
        ({"isthing": None}, "must have 'isthing'"),
        ({"id": "9"}, "no 'id' that is a whole number"),
        ({"id": True}, "no 'id' that is a whole number"),
        ({"name": ""}, "no 'name'"),
        ({"name": 5}, "no 'name'"),
        ({"color": [1, 2]}, "'color' must be"),
        ({"color": [1, 2, 256]}, "'color' must be"),
        ({"color": "red"}, "'color' must be"),
        ({"id": 40}, r"two categories have the same id: \[40\]"),
        ({"name": "grass"}, r"two categories have the same name: \['grass'\]"),
    ],
)
def test_categories_that_make_no_sense_are_refused(
    tmp_path, categories, content, write, change, message
):
    wrong = [categories[0], {**categories[1], **change}]
    with pytest.raises(ValueError, match=rf"panoptic\.json: .*{message}"):
        read_categories(write(tmp_path, content(categories=wrong)))


@pytest.mark.parametrize("none", [[], [5]])
def test_no_categories(tmp_path, content, write, none):
    with pytest.raises(ValueError, match=r"panoptic\.json: "):
        read_categories(write(tmp_path, content(categories=none)))


INSTANCES = [{"id": 1, "image_id": "b", "category_id": 9, "bbox": [0, 0, 1, 1]}]


@pytest.mark.parametrize(
    ("json_content", "message"),
    [
        (
            {"images": [], "annotations": INSTANCES, "categories": []},
            r"annotates instances.* detr-d2 prepare",
        ),
        ({"images": [], "annotations": []}, "no list 'categories'"),
        ({"images": [], "categories": []}, "no list 'annotations'"),
        ([], "no list 'categories'"),
        ("text", "no list 'categories'"),
    ],
)
def test_other_kinds_of_json_are_refused(tmp_path, write, json_content, message):
    with pytest.raises(ValueError, match=rf"panoptic\.json.*{message}"):
        read_categories(write(tmp_path, json_content))


@pytest.mark.parametrize(
    "damaged", [b"", b'{"images": [', b"\xff\xfe\x00", b"\x89PNG\r\n", b"[" * 100_000]
)
def test_what_is_no_json_is_named(tmp_path, damaged):
    path = tmp_path / "panoptic.json"
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"panoptic\.json: cannot be read as JSON"):
        read_categories(path)


def test_dicts(tmp_path, content, read):
    (image,) = read(NAME, content())
    assert image == {
        "file_name": str(tmp_path / "images" / "b.png"),
        "image_id": "b",
        "height": 4,
        "width": 6,
        "pan_seg_file_name": str(tmp_path / "pngs" / "b_pan.png"),
        "segments_info": [
            {
                "id": 5,
                "category_id": 0,
                "area": 3,
                "bbox": [0, 0, 1, 1],
                "iscrowd": 1,
                "isthing": True,
            },
            {
                "id": 6,
                "category_id": 3,
                "area": 4,
                "bbox": [0, 0, 2, 2],
                "iscrowd": 0,
                "isthing": False,
            },
        ],
    }


def test_an_image_without_segments_is_kept(content, read):
    empty = [{"image_id": "b", "file_name": "b.png", "segments_info": []}]
    (image,) = read(NAME, content(annotations=empty))
    assert image["segments_info"] == []


def test_images_without_annotation_are_left_out_and_counted(content, read, caplog):
    more = [{"id": i, "file_name": f"{i}.png", "height": 4, "width": 6} for i in range(3)]
    (image,) = read(NAME, content(images=[*more, *content()["images"]]))
    assert image["image_id"] == "b"
    assert "panoptic.json: 3 of 4 images have no annotation and are left out" in caplog.text
    caplog.clear()
    read(NAME, content())
    assert not caplog.records


@pytest.fixture
def altered(content: Callable[..., dict]) -> Callable[..., dict]:
    """Makes the content with a part changed; None takes a key away.

    ``of`` names the first image, annotation or segment, or "lists" for the lists themselves.
    """

    def make(of: str, **changes: object) -> dict:
        whole = content()
        annotation = whole["annotations"][0]
        entry = {
            "lists": whole,
            "image": whole["images"][0],
            "annotation": annotation,
            "segment": annotation["segments_info"][0],
        }[of]
        entry.update(changes)
        for key in [key for key, value in changes.items() if value is None]:
            del entry[key]
        return whole

    return make


@pytest.mark.parametrize(
    ("of", "changes", "message"),
    [
        ("segment", {"category_id": 41}, "image 'b' has a segment of category 41"),
        ("segment", {"category_id": None}, "image 'b' has a segment has no 'category_id'"),
        ("segment", {"id": "x"}, "image 'b' has a segment has a wrong 'id'"),
        ("annotation", {"segments_info": [5]}, "is no dict: 5"),
        ("annotation", {"segments_info": 5}, "an annotation has a wrong 'segments_info'"),
        ("annotation", {"image_id": "c"}, "no image has the annotated id 'c'"),
        ("annotation", {"file_name": None}, "an annotation has no 'file_name': .*'b'"),
        ("image", {"width": "6"}, "an image has a wrong 'width': .*'b'"),
        ("image", {"id": None}, "an image has no 'id'"),
        ("lists", {"images": []}, "no image has the annotated id 'b'"),
    ],
)
def test_entries_that_make_no_sense_are_refused(read, altered, of, changes, message):
    with pytest.raises(ValueError, match=rf"panoptic\.json: .*{message}"):
        read(NAME, altered(of, **changes))


@pytest.mark.parametrize(
    ("key", "message"),
    [("images", "two images have the id 'b'"), ("annotations", "image 'b' has two annotations")],
)
def test_entries_that_are_there_twice_are_refused(content, read, key, message):
    with pytest.raises(ValueError, match=rf"panoptic\.json: .*{message}"):
        read(NAME, content(**{key: 2 * content()[key]}))


@pytest.mark.parametrize("of", ["image", "annotation"])
@pytest.mark.parametrize(
    "file_name", ["../b.png", "a/../../b.png", "/etc/b.png", "..\\b.png", "\\b.png", "..", "", "."]
)
def test_file_names_that_leave_their_folder_are_refused(read, altered, of, file_name):
    with pytest.raises(ValueError, match=r"panoptic\.json: the file name .* leaves its folder"):
        read(NAME, altered(of, file_name=file_name))


@pytest.mark.parametrize("file_name", ["a/b.png", "a..b.png", "...png", "./b.png", "a b/ü.JPG"])
def test_file_names_below_their_folder_are_taken(tmp_path, read, altered, file_name):
    (image,) = read(NAME, altered("image", file_name=file_name))
    assert image["file_name"] == str(tmp_path / "images") + "/" + file_name

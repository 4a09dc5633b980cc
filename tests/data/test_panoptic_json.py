"""COCO's panoptic JSON: what is derived from its categories, and what is refused, by name."""

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
        ({"isthing": "x"}, "a wrong 'isthing': 'x'. It must be 1 or true for things"),
        ({"isthing": 2}, "a wrong 'isthing': 2"),
        ({"isthing": None}, "a wrong 'isthing': None"),
        ({"id": "x"}, "a wrong 'id': 'x'. It must be a whole number"),
        ({"id": True}, "a wrong 'id': True"),
        ({"id": 1.5}, r"a wrong 'id': 1\.5"),
        ({"name": ""}, "a wrong 'name'"),
        ({"name": 5}, "a wrong 'name': 5"),
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


@pytest.mark.parametrize(
    ("color", "read_as"),
    [
        ("#2080c0", [32, 128, 192]),
        ([1.0, "2", 3], [1, 2, 3]),
        ("#2080c", None),
        ("#zzzzzz", None),
        ("red", None),
        ([1, 2], None),
        ([1, 2, 256], None),
        ([0.1, 0.5, 1.0], None),
        ({}, None),
        (5, None),
    ],
)
def test_colours_are_read_or_made_and_never_refused(
    tmp_path, categories, content, write, color, read_as
):
    def colors(**changes):
        changed = [{**categories[0], **changes}, *categories[1:]]
        read = read_categories(write(tmp_path, content(categories=changed)))
        return [category["color"] for category in read]

    assert colors(color=color) == colors(color=read_as)


@pytest.mark.parametrize("isthing", ["1", 1.0, True])
def test_categories_are_read_whatever_tool_wrote_their_numbers(
    tmp_path, categories, content, write, isthing
):
    given = [{**c, "id": float(c["id"])} for c in categories[:2]]
    given += [{**c, "id": str(c["id"])} for c in categories[2:]]
    given = [{**c, "isthing": isthing if c["isthing"] else "0"} for c in given]
    read = read_categories(write(tmp_path, content(categories=given)))
    assert read == categories
    assert all(type(category["id"]) is int for category in read)


def test_of_categories_with_one_name_the_unused_is_left_out(
    tmp_path, categories, content, write, caplog
):
    """Segments are of 9 (cat) and 40 (grass)."""
    root, dogs = {"id": 0, "name": "cat", "isthing": 1}, {"id": 1, "name": "dog", "isthing": 1}
    path = write(tmp_path, content(categories=[root, dogs, *categories]))
    assert read_categories(path) == categories
    assert "others have their names: [0, 1]" in caplog.text


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

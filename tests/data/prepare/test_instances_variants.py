"""COCO's instance JSON in the variants that tools write: the same dataset, or a word about it."""

import json

import numpy as np
import pytest

from detr_d2.data.prepare import PreparationError, prepare_instances

SQUARE = [1, 1, 5, 1, 5, 4, 1, 4]
POINTS = [[1, 1], [5, 1], [5, 4], [1, 4]]
IMAGE = {"id": 1, "file_name": "a.jpg", "height": 6, "width": 8}
CAT, DOG = {"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}


def annotation(**more) -> dict:
    return {"id": 3, "image_id": 1, "category_id": 1, "segmentation": [SQUARE], **more}


def box(x0, y0, x1, y1) -> list:
    mask = np.zeros((6, 8), int)
    mask[y0:y1, x0:x1] = 1
    return mask.tolist()


CAT_PIXELS = box(1, 1, 5, 4)


@pytest.fixture
def prepare(write_json, tmp_path):
    """Writes data/instances.json and prepares it."""

    def run(annotations=None, images=(IMAGE,), categories=(CAT,), folder=None, **options):
        annotations = [annotation()] if annotations is None else annotations
        content = {
            "images": list(images),
            "annotations": annotations,
            "categories": list(categories),
        }
        path = write_json("data/instances.json", content)
        return prepare_instances(path, tmp_path / "out", images=folder, **options)

    return run


@pytest.fixture
def written(tmp_path):
    return lambda: json.loads((tmp_path / "out" / "panoptic.json").read_text())


VARIANTS = {
    "ids as floats": {"annotation": {"image_id": 1.0, "category_id": 1.0}},
    "ids as texts": {"annotation": {"image_id": "1", "category_id": "1"}},
    "ids of images as texts": {"image": {"id": "1"}},
    "ids of categories as texts": {"category": {"id": "1"}},
    "ids of categories as floats": {"category": {"id": 1.0}},
    "sizes as floats": {"image": {"height": 6.0, "width": 8.0}},
    "sizes as texts": {"image": {"height": "6", "width": "8"}},
    "flat polygon": {"annotation": {"segmentation": SQUARE}},
    "polygon of pairs": {"annotation": {"segmentation": POINTS}},
    "polygons of pairs": {"annotation": {"segmentation": [POINTS]}},
    "colour": {"category": {"color": "#2080c0"}},
    "odd colour": {"category": {"color": "red"}},
    "name with spaces": {"category": {"name": " cat "}},
    "no iscrowd": {"annotation": {}},
    **{f"iscrowd {flag!r}": {"annotation": {"iscrowd": flag}} for flag in (0, 0.0, "0", False)},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_the_same_dataset(variant, prepare, read_back, tmp_path, written):
    changed = VARIANTS[variant]
    annotations = [annotation(**changed.get("annotation", {}))]
    images = [{**IMAGE, **changed.get("image", {})}]
    prepare(annotations, images, [{**CAT, **changed.get("category", {})}])
    assert read_back(tmp_path / "out") == {"a.jpg": [(1, 0, CAT_PIXELS)]}
    assert written()["images"] == [IMAGE]
    assert [(c["id"], c["name"]) for c in written()["categories"]] == [(1, "cat")]


def test_names_that_lose_spaces_are_noted(prepare):
    report = prepare(categories=[{**CAT, "name": "cat "}, DOG])
    assert "category 1: 'cat ' is called 'cat' from here on" in report.notes
    assert not any("'dog'" in note for note in report.notes)


@pytest.mark.parametrize("flag", [1, 1.0, "1", True])
def test_crowds_in_all_forms(flag, prepare):
    assert prepare([annotation(iscrowd=flag)]).crowds == 1


@pytest.mark.parametrize("crumbs", [[[6, 5, 7, 5]], [[]], [[6, 5], [6, 5, 7, 5]]])
def test_crumbs_beside_a_polygon_are_dropped_and_counted(crumbs, prepare, read_back, tmp_path):
    parts = [
        annotation(segmentation=[SQUARE, *crumbs]),
        annotation(segmentation=[[6, 4, 8, 4, 8, 6]]),
    ]
    report = prepare(parts)
    assert f"\n{len(crumbs)} parts of fewer than three points were dropped" in str(report)
    assert read_back(tmp_path / "out")["a.jpg"][0] == (1, 0, CAT_PIXELS)
    assert report.segments == 2


@pytest.mark.parametrize("nothing", [{"segmentation": []}, {"segmentation": None}, None])
def test_annotations_without_segmentation_are_listed(nothing, prepare, read_back, tmp_path):
    empty = annotation(id=9, **(nothing or {}))
    if nothing is None:
        del empty["segmentation"]
    with pytest.raises(PreparationError, match="annotation 9: it has no segm.*--skip-errors"):
        prepare([annotation(), empty])
    report = prepare([annotation(), empty], skip_errors=True)
    assert len(report.left_out) == 1 and "annotation 9" in report.left_out[0]
    assert read_back(tmp_path / "out") == {"a.jpg": [(1, 0, CAT_PIXELS)]}


@pytest.mark.parametrize("unknown", [-1, 0, None, "", "gone"])
@pytest.mark.parametrize("folder", ["data", "photographs"])
def test_unknown_sizes_are_those_of_the_images(
    unknown, folder, prepare, read_back, write_png, tmp_path
):
    image = {**IMAGE, "file_name": "sub/a.png", "height": unknown, "width": unknown}
    if unknown == "gone":
        del image["height"], image["width"]
    with pytest.raises(PreparationError, match=r"image 1: .*sub/a\.png.*--images FOLDER"):
        prepare(images=[image])
    write_png(f"{folder}/sub/a.png", np.zeros((6, 8)))
    prepare(images=[image], folder=None if folder == "data" else tmp_path / folder)
    assert read_back(tmp_path / "out") == {"sub/a.png": [(1, 0, CAT_PIXELS)]}


def test_a_folder_of_images_has_to_be_there(prepare, tmp_path):
    with pytest.raises(NotADirectoryError, match="There is no folder .*gone"):
        prepare(folder=tmp_path / "gone")


@pytest.mark.parametrize("on_disk", [None, "sub/a.jpg", "sub\\a.jpg"])
def test_backslashes_are_slashes_where_no_file_has_them(
    on_disk, prepare, read_back, write_png, tmp_path
):
    if on_disk is not None:
        path = write_png("data/a.png", np.zeros((6, 8)))
        (tmp_path / "data/sub").mkdir()
        path.rename(tmp_path / "data" / on_disk)
    prepare(images=[{**IMAGE, "file_name": "sub\\a.jpg"}])
    assert list(read_back(tmp_path / "out")) == [on_disk or "sub/a.jpg"]
    assert (tmp_path / "out/panoptic/sub/a.png").is_file()


@pytest.mark.parametrize("name", ["u\u0308/a.jpg", "\u00fc\\a.jpg", "\u00fc/a.jpg"])
def test_semantic_pngs_are_found_whatever_the_spelling(
    name, prepare, read_back, write_png, tmp_path
):
    png = write_png("semantic/\u00fc/a.png", np.full((6, 8), 2))
    sky = {"id": 2, "name": "sky", "isthing": 0}
    prepare(images=[{**IMAGE, "file_name": name}], categories=[CAT, sky], semantic=png.parents[1])
    (segments,) = read_back(tmp_path / "out").values()
    assert [category_id for category_id, *_ in segments] == [2, 1]


@pytest.mark.parametrize("used", [[1], []])
def test_the_root_of_the_categories_is_left_out(used, prepare, written):
    root = {"id": 0, "name": "cat", "supercategory": "none"}
    cat = {**CAT, "supercategory": "cat"}
    report = prepare([annotation(category_id=c) for c in used], categories=[root, cat])
    assert [category["id"] for category in written()["categories"]] == [1]
    assert "category 0 is left out" in str(report)


def test_two_used_categories_of_one_name_are_an_error(prepare):
    with pytest.raises(PreparationError, match="two categories have the same name"):
        prepare([annotation(), annotation(category_id=2)], categories=[CAT, {**DOG, "name": "cat"}])


CROWDS = [annotation(iscrowd=1), annotation(iscrowd=1, segmentation=[[5, 1, 7, 1, 7, 4, 5, 4]])]


def test_crowds_can_be_single_objects(prepare, read_back, tmp_path):
    report = prepare(CROWDS, crowds_as_things=True)
    assert report.crowds == 0 and "crowds-as-things" not in str(report)
    expected = [(1, 0, CAT_PIXELS), (1, 0, box(5, 1, 7, 4))]
    assert read_back(tmp_path / "out")["a.jpg"] == expected


def test_stuff_that_is_marked_as_crowd_stays_stuff(prepare):
    report = prepare(CROWDS, categories=[{**CAT, "isthing": 0}], crowds_as_things=True)
    assert report.segments == 1
    assert "annotations of things" not in str(report)


def test_classes_of_which_all_are_crowds(prepare):
    dogs = [annotation(category_id=2), annotation(category_id=2, iscrowd=1)]
    said = str(prepare(CROWDS + dogs, categories=[CAT, DOG]))
    assert "3 of 4 annotations of things are crowds" in said
    assert "All annotations of 'cat' are crowds" in said and "--crowds-as-things" in said


def test_few_crowds_are_only_counted(prepare):
    said = str(prepare([annotation(), *CROWDS]))
    assert "2 of 3 annotations of things are crowds" in said and "-as-things" not in said


def test_a_background_takes_what_nothing_annotates(prepare, read_back, tmp_path, written):
    assert "All classes are things, and 75.0% of all pixels are void" in str(prepare())
    (tmp_path / "out").rename(tmp_path / "void")
    full = annotation(image_id=2, segmentation=[[0, 0, 8, 0, 8, 6, 0, 6]])
    images = [IMAGE, {**IMAGE, "id": 2, "file_name": "b.jpg"}]
    report = prepare([annotation(), full], images, [CAT, DOG], background="floor")
    assert report.hidden == 0 and "void" not in str(report)
    (*_, floor) = written()["categories"]
    assert (floor["id"], floor["name"], floor["isthing"]) == (3, "floor", 0)
    behind = (1 - np.array(CAT_PIXELS)).tolist()
    assert read_back(tmp_path / "out") == {
        "a.jpg": [(3, 0, behind), (1, 0, CAT_PIXELS)],
        "b.jpg": [(1, 0, box(0, 0, 8, 6))],
    }


def test_nothing_is_background_where_an_annotation_was_left_out(prepare, read_back, tmp_path):
    broken = annotation(segmentation=[])
    report = prepare([annotation(), broken], background="floor", skip_errors=True)
    assert "1 images kept their void" in str(report)
    assert read_back(tmp_path / "out") == {"a.jpg": [(1, 0, CAT_PIXELS)]}


def test_backgrounds_that_are_refused(prepare, tmp_path):
    with pytest.raises(PreparationError, match="two categories have the same name"):
        prepare(background="cat")
    with pytest.raises(PreparationError, match="wrong 'name'"):
        prepare(background="")
    with pytest.raises(PreparationError, match="--background is for data without --semantic"):
        prepare(background="floor", semantic=tmp_path)

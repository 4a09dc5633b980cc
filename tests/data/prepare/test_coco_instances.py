"""COCO's instance JSON, compared pixel by pixel with a brute-force rule."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panopticapi.evaluation import pq_compute
from pycocotools import mask as coco_mask

from detr_d2.data.prepare import PreparationError, prepare_instances
from detr_d2.data.prepare.coco_instances import InstancesImage

HEIGHT, WIDTH = 9, 12
IMAGE = {"id": 5, "file_name": "sub/a.jpg", "height": HEIGHT, "width": WIDTH}
IS_THING = {1: True, 2: True, 7: False, 9: False}


def box_mask(x0, y0, x1, y1) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y0:y1, x0:x1] = 1
    return mask


def encoded(mask: np.ndarray, form: str, box) -> object:
    """A box in one of the forms that COCO knows."""
    x0, y0, x1, y1 = box
    if form == "polygon":
        return [[x0, y0, x1, y0, x1, y1, x0, y1]]
    if form == "compressed":
        rle = coco_mask.encode(np.asfortranarray(mask))
        return {**rle, "counts": rle["counts"].decode()}
    flat = mask.ravel(order="F").tolist()
    counts = [0]
    for previous, pixel in zip([0, *flat], flat, strict=False):
        counts += [0] if pixel != previous else []
        counts[-1] += 1
    return {"size": [HEIGHT, WIDTH], "counts": counts}


def annotation(box, category_id=1, form="polygon", **more) -> dict:
    segmentation = encoded(box_mask(*box), form, box)
    return {"image_id": 5, "category_id": category_id, "segmentation": segmentation, **more}


def brute_force(boxes) -> tuple[np.ndarray, dict]:
    """For each pixel the place of what lies on top, or of the first that it is joined with."""
    top = np.full((HEIGHT, WIDTH), -1)
    first = {}
    keys = []
    for place, (_, category_id, crowd) in enumerate(boxes):
        alone = IS_THING[category_id] and not crowd
        keys.append((category_id, place if alone else None))
        first.setdefault(keys[-1], place)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            over = []
            for place, ((x0, y0, x1, y1), category_id, crowd) in enumerate(boxes):
                if x0 <= x < x1 and y0 <= y < y1:
                    kind = 2 if not IS_THING[category_id] else int(crowd)
                    over.append((kind, (x1 - x0) * (y1 - y0), place))
            if over:
                top[y, x] = first[keys[min(over)[-1]]]
    return top, first


@st.composite
def annotated_boxes(draw):
    x0, y0 = draw(st.integers(0, WIDTH - 1)), draw(st.integers(0, HEIGHT - 1))
    box = x0, y0, draw(st.integers(x0 + 1, WIDTH)), draw(st.integers(y0 + 1, HEIGHT))
    return box, draw(st.sampled_from(list(IS_THING))), draw(st.booleans())


@given(
    boxes=st.lists(annotated_boxes(), max_size=8),
    form=st.sampled_from(["polygon", "compressed", "uncompressed"]),
)
@settings(deadline=None, database=None, max_examples=60)
def test_overlaps_are_resolved_as_by_brute_force(boxes, form):
    annotations = [annotation(box, c, form, iscrowd=int(crowd)) for box, c, crowd in boxes]
    result = InstancesImage("x.json", IMAGE, tuple(annotations), None).segmentation(IS_THING)
    top, first = brute_force(boxes)
    assert result.problems == ()
    places = [place for place in first.values() if (top == place).any()]
    assert result.hidden == len(first) - len(places) and len(result.segments) == len(places)
    for number, (place, segment) in enumerate(zip(places, result.segments, strict=True), start=1):
        np.testing.assert_array_equal(result.labels == number, top == place)
        _, category_id, crowd = boxes[place]
        assert segment.category_id == category_id
        assert segment.iscrowd == (crowd and IS_THING[category_id])
    np.testing.assert_array_equal(result.labels == 0, top == -1)


@pytest.fixture
def prepare(write_json, tmp_path, categories):
    def run(annotations, images=(IMAGE,), known=categories, **options):
        content = {"images": list(images), "annotations": annotations, "categories": known}
        path = write_json("instances.json", content)
        return prepare_instances(path, tmp_path / "out", **options)

    return run


def test_a_dataset_is_read_back(prepare, read_back, tmp_path):
    boxes = [(0, 0, 6, 4), (2, 1, 4, 3), (0, 0, 12, 9), (1, 5, 12, 9)]
    annotations = [
        annotation(boxes[0], 1),
        annotation(boxes[1], 2, "compressed"),
        annotation(boxes[2], 7, "uncompressed"),
        annotation(boxes[3], 1, "uncompressed", iscrowd=1),
        annotation(boxes[1], 1),  # below the other one of the same size
    ]
    empty = {"id": "b", "file_name": "b.jpg", "height": 2, "width": 3, "license": 4}
    report = prepare(annotations, [IMAGE, empty])
    assert (report.images, report.segments, report.crowds, report.hidden) == (2, 4, 1, 1)
    assert "1 segments had no visible pixel" in str(report) and report.left_out == []
    big, small, all_of_it, crowd = (box_mask(*box).astype(int) for box in boxes)
    assert read_back(tmp_path / "out") == {
        "sub/a.jpg": [
            (1, 0, (big - small).tolist()),
            (2, 0, small.tolist()),
            (7, 0, (all_of_it - big - crowd).tolist()),
            (1, 1, crowd.tolist()),
        ],
        "b.jpg": [],
    }
    written = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    assert written["images"] == [IMAGE, empty]
    assert [c["isthing"] for c in written["categories"]] == [1, 1, 0, 0]


def test_panopticapi_scores_a_dataset_against_itself(prepare, tmp_path, capfd):
    prepare([annotation((0, 0, 6, 4)), annotation((3, 3, 12, 9), 7)])
    result = pq_compute(*[str(tmp_path / "out" / "panoptic.json")] * 2)
    capfd.readouterr()
    assert [result[group]["pq"] for group in ("All", "Things", "Stuff")] == [1, 1, 1]
    assert result["All"]["n"] == 2


def test_crowds_of_one_category_are_one_segment(prepare, read_back, tmp_path):
    """panopticapi knows only one crowd of each category."""
    boxes = [(0, 0, 3, 3), (5, 5, 8, 8)]
    prepare([annotation(box, 1, "uncompressed", iscrowd=1) for box in boxes])
    both = sum(box_mask(*box).astype(int) for box in boxes)
    assert read_back(tmp_path / "out") == {"sub/a.jpg": [(1, 1, both.tolist())]}


@pytest.mark.parametrize("isthing", [0, 1])
def test_only_things_and_only_stuff(isthing, prepare, read_back, tmp_path):
    annotations = [annotation((0, 0, 6, 4)), annotation((7, 5, 9, 9))]
    prepare(annotations, known=[{"id": 1, "name": "cat", "isthing": isthing}])
    assert len(read_back(tmp_path / "out")["sub/a.jpg"]) == (2 if isthing else 1)


def test_categories_without_isthing_are_things(prepare, tmp_path):
    prepare([annotation((0, 0, 6, 4))], known=[{"id": 1, "name": "cat"}])
    (category,) = json.loads((tmp_path / "out" / "panoptic.json").read_text())["categories"]
    assert category["isthing"] == 1 and len(category["color"]) == 3


def test_semantic_pngs_lie_behind(prepare, read_back, write_png, write_json, tmp_path, categories):
    semantic = np.full((HEIGHT, WIDTH), 7)
    semantic[6:] = 9
    semantic[0] = 255
    semantic[3, :8] = 2  # a thing that no annotation tells apart
    png = write_png("semantic/sub/a.png", semantic)
    file = write_json("categories.json", {"categories": categories})
    annotations = [annotation((1, 1, 4, 5)), annotation((10, 0, 12, 2), 7)]
    report = prepare(annotations, semantic=png.parents[1], categories=file, ignore=[255])
    cat, sky = box_mask(1, 1, 4, 5), box_mask(10, 0, 12, 2)
    expected = np.where(sky, 7, semantic)
    expected[cat == 1] = 1
    assert report.hidden == 0
    segments = read_back(tmp_path / "out")["sub/a.jpg"]
    assert segments == [
        (category_id, 0, (expected == category_id).astype(int).tolist())
        for category_id in (7, 9, 1)
    ]


def test_a_mapping_says_what_pixels_are(prepare, read_back, write_png, write_json, tmp_path):
    png = write_png("semantic/sub/a.png", np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 4)
    mapping = write_json("mapping.json", {"0": 7, "1": None, "2": 7, "3": 9})
    prepare([], semantic=png.parents[1], mapping=mapping)
    pixels = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    assert read_back(tmp_path / "out")["sub/a.jpg"] == [
        (7, 0, (pixels % 2 == 0).astype(int).tolist()),
        (9, 0, (pixels % 4 == 3).astype(int).tolist()),
    ]


BROKEN = {
    "nothing": ({"segmentation": []}, "no segmentation"),
    "no segmentation": ({"segmentation": None}, "no segmentation"),
    "missing text": ({"segmentation": ""}, "no segmentation"),
    "flat odd": ({"segmentation": [0, 0, 5, 0, 5]}, "pairs of numbers"),
    "flat and not": ({"segmentation": [0, 0, 5, 0, 5, 5, [1, 2]]}, "has to be a list of numbers"),
    "only crumbs": ({"segmentation": [[0, 0, 5, 5], [1, 1]]}, "a polygon of 2 points"),
    "two points": ({"segmentation": [[0, 0, 5, 5]]}, "a polygon of 2 points"),
    "odd": ({"segmentation": [[0, 0, 5, 0, 5, 5, 1]]}, "pairs of numbers"),
    "text": ({"segmentation": [[0, 0, 5, 0, 5, "x"]]}, "pairs of numbers"),
    "huge number": ({"segmentation": [[0, 0, 5, 0, 5, 10**400]]}, "pairs of numbers"),
    "not finite": ({"segmentation": [[0, 0, 5, 0, 5, float("nan")]]}, "far outside"),
    "far outside": ({"segmentation": [[0, 0, 5e9, 0, 5, 5]]}, "(5e+09, 0) is far outside"),
    "far left": ({"segmentation": [[0, 0, -50, 0, 5, 5]]}, "(-50, 0) is far outside"),
    "size": ({"segmentation": {"size": [12, 9], "counts": [108]}}, "has the size [12, 9]"),
    "no counts": ({"segmentation": {"size": [9, 12]}}, "whole numbers or a text"),
    "short": ({"segmentation": {"size": [9, 12], "counts": [107]}}, "don't add up"),
    "long": ({"segmentation": {"size": [9, 12], "counts": [2**32 + 108]}}, "don't add up"),
    "negative": ({"segmentation": {"size": [9, 12], "counts": [109, -1]}}, "don't add up"),
    "cut off": ({"segmentation": {"size": [9, 12], "counts": "P"}}, "compressed form"),
    "category": ({"category_id": 3}, "there is no category 3"),
    "listed category": ({"category_id": [1]}, "there is no category [1]"),
    "crowd": ({"iscrowd": 2}, "iscrowd has to be 0 or 1, not 2"),
    "no crowd": ({"iscrowd": None}, "iscrowd has to be 0 or 1, not None"),
    "crowd in words": ({"iscrowd": "yes"}, "iscrowd has to be 0 or 1, not 'yes'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_annotations(name, prepare, read_back, tmp_path):
    change, said = BROKEN[name]
    good = annotation((0, 0, 6, 4), id=1)
    broken = {**annotation((3, 3, 12, 9), id=22), **change}
    with pytest.raises(PreparationError) as caught:
        prepare([good, broken])
    message = str(caught.value)
    assert f"{tmp_path / 'instances.json'}: image 5, annotation 22: " in message and said in message
    assert not (tmp_path / "out").exists()
    report = prepare([good, broken], skip_errors=True)
    assert report.left_out == [message] and message in str(report)
    assert read_back(tmp_path / "out")["sub/a.jpg"] == [
        (1, 0, box_mask(0, 0, 6, 4).astype(int).tolist())
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"height": 0}, "its height and width are 0 and 12, and its file doesn't tell them"),
        ({"height": -1, "width": -1}, "--images FOLDER says where"),
        ({"height": [], "width": "x"}, "its height and width are [] and 'x'"),
        ({"height": 10**9, "width": 10**9}, "pixels are allowed"),
        ({"width": 12.5}, "its height and width are 9 and 12.5"),
        ({"width": None}, "its height and width are 9 and None"),
        ({"file_name": "../a.jpg"}, "may have neither"),
        ({"id": 6, "file_name": "b.jpg"}, "another image has its name or id"),
    ],
)
def test_broken_images(change, said, prepare, read_back, tmp_path):
    other = {**IMAGE, "id": 6, "file_name": "b.jpg"}
    images = [other, {**IMAGE, **change}]
    with pytest.raises(PreparationError) as caught:
        prepare([annotation((0, 0, 6, 4), image_id=6)], images)
    assert said in str(caught.value) and not (tmp_path / "out").exists()
    report = prepare([annotation((0, 0, 6, 4), image_id=6)], images, skip_errors=True)
    assert report.left_out == [str(caught.value)]
    assert list(read_back(tmp_path / "out")) == ["b.jpg"]


@pytest.mark.parametrize("image_id", [99, None, [1]])
def test_annotations_of_no_image(image_id, prepare, tmp_path):
    stray = {**annotation((0, 0, 2, 2), id=3), "image_id": image_id}
    with pytest.raises(PreparationError, match="annotation 3 is of image .*, which is not there"):
        prepare([stray])
    report = prepare([stray, annotation((0, 0, 6, 4))], skip_errors=True)
    assert len(report.left_out) == report.segments == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "no list of images"),
        ({"images": []}, "no list of annotations"),
        ({"images": [{"id": []}], "annotations": []}, "an image has the id []"),
        ({"images": [IMAGE], "annotations": [3]}, "no list of annotations"),
        ({"images": [IMAGE], "annotations": []}, "list of categories"),
        ({"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}, "No image"),
    ],
)
def test_broken_files(content, said, write_json, tmp_path):
    path = write_json("instances.json", content)
    for skip_errors in (False, True):
        with pytest.raises(PreparationError) as caught:
            prepare_instances(path, tmp_path / "out", skip_errors=skip_errors)
        assert said in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["instances.json"]


def test_a_semantic_png_that_is_missing_or_of_another_size(prepare, write_png, tmp_path):
    with pytest.raises(PreparationError, match=r"No such file .*a\.png"):
        prepare([], semantic=tmp_path)
    write_png("semantic/sub/a.png", [[7]])
    with pytest.raises(PreparationError, match=r"a\.png has 1×1 pixels, its image 12×9"):
        prepare([], semantic=tmp_path / "semantic")

"""Faults planted one at a time in a dataset without any: each is found, and nothing else."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest
from PIL import Image

from detr_d2.data.check.findings import KINDS
from detr_d2.data.image_file import ImageOptions
from detr_d2.data.panoptic_png import read_panoptic_png, write_panoptic_png

# A fault's name: the kind that is to be found, and what plants it.
PLANTED = {}


def fault(kind):
    def add(plant):
        PLANTED[plant.__name__] = (kind, plant)
        return plant

    return add


def change_png(dataset, number, change):
    ids = read_panoptic_png(dataset.png(number)).copy()
    write_panoptic_png(change(ids), dataset.png(number))


@fault("unreadable_image")
def truncated_image(dataset):
    dataset.image(1).write_bytes(dataset.image(1).read_bytes()[:50])


@fault("unreadable_image")
def empty_image_file(dataset):
    dataset.image(1).write_bytes(b"")


@fault("unreadable_image")
def missing_image(dataset):
    dataset.image(1).unlink()


@fault("unreadable_png")
def truncated_png(dataset):
    dataset.png(1).write_bytes(dataset.png(1).read_bytes()[:50])


@fault("unreadable_png")
def missing_png(dataset):
    dataset.png(1).unlink()


@fault("unreadable_png")
def grey_png(dataset):
    Image.open(dataset.png(1)).convert("L").save(dataset.png(1))


@fault("image_size")
def image_of_another_size(dataset):
    Image.new("RGB", (12, 16)).save(dataset.image(1))  # turned by 90°


@fault("dark_image")
def image_of_12_bits_in_16(dataset):
    Image.fromarray(np.full((12, 16), 4095, np.uint16)).save(dataset.image(1))


@fault("dark_image")
def image_of_14_bits_in_16_in_colours(dataset):
    pixels = np.full((12, 16, 3), 16383, np.uint16)
    cv2.imwrite(str(dataset.image(1)), pixels)


@fault("png_size")
def png_of_another_size(dataset):
    change_png(dataset, 1, lambda ids: ids[:, :-1])


@fault("ids_not_in_json")
def id_that_the_json_lacks(dataset):
    def change(ids):
        ids[0, 0] = 77  # where void was
        return ids

    change_png(dataset, 1, change)


@fault("ids_not_in_png")
def id_that_the_png_lacks(dataset):
    more = {"id": 77, "category_id": 5, "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": 1}
    dataset.segments(1).append(more)


@fault("malformed_entry")
def id_of_void(dataset):
    more = {"id": 0, "category_id": 5, "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": 1}
    dataset.segments(1).append(more)


@fault("malformed_entry")
def id_that_no_colour_has(dataset):
    more = {"id": 2**70, "category_id": 5, "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": 1}
    dataset.segments(1).append(more)


@fault("wrong_area")
def wrong_area(dataset):
    dataset.segments(1)[0]["area"] += 1


@fault("wrong_box")
def wrong_box(dataset):
    dataset.segments(1)[0]["bbox"][2] += 2


@fault("unknown_category")
def unknown_category(dataset):
    dataset.segments(1)[0]["category_id"] = 6


@fault("duplicate_image_id")
def duplicate_image_id(dataset):
    dataset.content["images"].append({**dataset.content["images"][0], "file_name": "new.png"})


@fault("duplicate_annotation")
def duplicate_annotation(dataset):
    annotation = dataset.content["annotations"][0]
    dataset.content["annotations"].append({**annotation, "file_name": "new.png"})


@fault("duplicate_segment_id")
def duplicate_segment_id(dataset):
    dataset.segments(1).append({**dataset.segments(1)[0], "category_id": 9})


@fault("duplicate_file_name")
def duplicate_file_name_of_images(dataset):
    dataset.content["images"][1]["file_name"] = dataset.content["images"][0]["file_name"]


@fault("duplicate_file_name")
def duplicate_file_name_of_pngs(dataset):
    annotations = dataset.content["annotations"]
    annotations[1]["file_name"] = annotations[0]["file_name"]


@fault("duplicate_category")
def duplicate_category(dataset):
    dataset.content["categories"].append({**dataset.content["categories"][0], "name": "new"})


@fault("duplicate_category")
def duplicate_category_name(dataset):
    dataset.content["categories"][1]["name"] = "cat"


@fault("empty_image")
def image_without_segments(dataset):
    # That such an image is void all over is not said again.
    dataset.segments(1).clear()
    change_png(dataset, 1, np.zeros_like)


@fault("all_void")
def png_of_void(dataset):
    change_png(dataset, 1, np.zeros_like)


@fault("class_without_examples")
def class_without_examples(dataset):
    new = {"id": 2, "name": "bird", "isthing": 1, "color": [1, 2, 3]}
    dataset.content["categories"].append(new)


@fault("class_of_crowds_alone")
def class_of_crowds_alone(dataset):
    for number in range(3):
        dataset.segments(number)[3]["iscrowd"] = 1


@fault("unused_namesake")
def root_category(dataset):
    dataset.content["categories"].insert(0, {"id": 0, "name": "cat", "isthing": 1})


@fault("stuff_in_parts")
def stuff_of_two_segments(dataset):
    dataset.segments(1)[3]["category_id"] = 9


@fault("void_background")
def things_alone_on_void(dataset):
    dataset.content["categories"][2]["isthing"] = 1


@fault("isthing_not_boolean")
def isthing_that_is_text(dataset):
    dataset.content["categories"][2]["isthing"] = "stuff"


@fault("isthing_not_boolean")
def isthing_that_is_missing(dataset):
    del dataset.content["categories"][2]["isthing"]


@fault("tiny_segment")
def tiny_segment(dataset):
    def change(ids):
        ids[ids == 4] = 70_000
        ids[11, :4] = 4
        return ids

    change_png(dataset, 1, change)
    _, _, sky, dog = dataset.segments(1)
    sky["area"] += 4
    dog.update(area=4, bbox=[0, 11, 4, 1])


@fault("too_many_segments")
def more_segments_than_queries(dataset):
    def change(ids):
        ids[0, :5] = 77
        return ids

    change_png(dataset, 1, change)
    more = {"id": 77, "category_id": 5, "area": 5, "bbox": [0, 0, 5, 1], "iscrowd": 0}
    dataset.segments(1).append(more)


@fault("annotation_without_image")
def annotation_without_image(dataset):
    annotation = dataset.content["annotations"][0]
    new = {**annotation, "image_id": 99, "file_name": "new.png"}
    dataset.content["annotations"].append(new)


@fault("no_annotated_image")
def no_images(dataset):
    dataset.content["images"].clear()
    dataset.content["annotations"].clear()


@fault("image_without_annotation")
def image_without_annotation(dataset):
    del dataset.content["annotations"][1]


@fault("malformed_entry")
def image_without_height(dataset):
    new = {**dataset.content["images"][0], "id": 99, "file_name": "new.png"}
    del new["height"]
    dataset.content["images"].append(new)


@fault("malformed_entry")
def segment_that_is_no_dict(dataset):
    dataset.segments(1).append(5)


@fault("malformed_entry")
def category_without_name(dataset):
    dataset.content["categories"].append({"id": 2, "isthing": 1})


@fault("malformed_entry")
def file_name_that_leaves_its_folder(dataset):
    new = {**dataset.content["images"][0], "id": 99, "file_name": "../../secret.png"}
    dataset.content["images"].append(new)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(dataset, planted, name):
    kind, plant = PLANTED[name]
    plant(dataset)
    report = dataset.check(num_queries=3)
    planted(dict(report.findings.counts) == {kind: 1})
    assert report.breaks == (KINDS[kind][0] == "breaks")
    (example,) = report.findings.examples[kind]
    assert example.where and example.what
    assert str(dataset.folder) in example.where


@pytest.mark.parametrize(
    "change",
    [
        {"bbox": [float("nan"), "3", None]},
        {"bbox": None, "area": None},
        {"area": "10"},
        {"iscrowd": False},
        {"iscrowd": "0", "id": "1", "category_id": 5.0},
    ],
)
def test_what_nothing_uses_or_all_read_alike_is_no_fault(dataset, change):
    dataset.segments(1)[0].update(change)
    del dataset.segments(1)[1]["area"], dataset.segments(1)[1]["bbox"]
    assert not dataset.check(num_queries=3).findings.counts


@pytest.mark.parametrize("ignored", [False, True])
def test_sizes_that_differ_by_exifs_turn_say_so(dataset, ignored):
    tags = Image.Exif()
    tags[0x112] = 8
    stored = (16, 12) if not ignored else (12, 16)
    Image.new("RGB", stored, (9, 99, 199)).save(dataset.image(1), exif=tags)
    for ignore_exif in (False, True):
        options = ImageOptions(ignore_exif=ignore_exif)
        report = dataset.check(num_queries=3, image_options=options)
        if ignore_exif != ignored:
            assert not report.findings.counts
        else:
            (finding,) = report.findings.examples["image_size"]
            assert f"INPUT.IGNORE_EXIF {'is True' if ignored else 'True'}" in finding.what


def test_every_kind_is_planted():
    # What has no target at all has other faults as well, see test_labels; the other needs a range.
    elsewhere = {"no_target", "too_bright_image"}
    assert {kind for kind, _ in PLANTED.values()} == set(KINDS) - elsewhere


@pytest.mark.parametrize(
    ("highest", "deep_range", "found"),
    [
        (4095, 65535, "4095 of 65535: it will be nearly black, 15 of 255 at most.*DEEP_RANGE 4095"),
        (4095, 4095, None),
        (5000, 4095, "5000 of 4095, and all above are white"),
        (900, 4095, "900 of 4095: .*56 of 255 at most.*INPUT.DEEP_RANGE 1023"),
        (1100, 4095, None),
        (0, 65535, None),  # black all over, whatever the range
    ],
)
def test_the_range_of_deep_images_is_compared(dataset, highest, deep_range, found):
    Image.fromarray(np.full((12, 16), highest, np.uint16)).save(dataset.image(1))
    report = dataset.check(num_queries=3, image_options=ImageOptions(deep_range=deep_range))
    whats = [e.what for examples in report.findings.examples.values() for e in examples]
    assert len(whats) == (found is not None) and not report.breaks
    assert found is None or re.search(found, whats[0])


def test_without_faults_nothing_is_found(dataset):
    report = dataset.check(num_queries=3)
    assert not report.findings.counts and not report.breaks

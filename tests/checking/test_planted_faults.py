"""Faults planted one at a time in a dataset without any: each is found, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from detr_d2.checking.findings import KINDS
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


def test_every_kind_is_planted():
    # What has no target at all has other faults as well: see test_labels.
    assert {kind for kind, _ in PLANTED.values()} == set(KINDS) - {"no_target"}


def test_without_faults_nothing_is_found(dataset):
    report = dataset.check(num_queries=3)
    assert not report.findings.counts and not report.breaks

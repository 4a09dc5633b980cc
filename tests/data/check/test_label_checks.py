"""Labels that are right by the format: the check says what they cost."""

import numpy as np
import pytest

from detr_d2.data.panoptic_png import write_panoptic_png


def said(report, kind):
    return [example.what for example in report.findings.examples.get(kind, [])]


def mark_as_crowds(dataset, *category_ids):
    for number in range(3):
        for segment in dataset.segments(number):
            segment["iscrowd"] = int(segment["category_id"] in category_ids)


def test_a_class_of_crowds_names_its_number_and_the_option(dataset):
    mark_as_crowds(dataset, 7)
    (what,) = said(dataset.check(), "class_of_crowds_alone")
    assert what.startswith("'dog': its 6 segments are crowds")
    assert "DATASETS.CROWDS_AS_THINGS" in what
    assert not dataset.check(crowds_as_things=True).findings.counts


def test_the_option_does_not_help_crowds_of_stuff(dataset):
    mark_as_crowds(dataset, 9)
    (what,) = said(dataset.check(crowds_as_things=True), "class_of_crowds_alone")
    assert what.startswith("'sky': its 3 segments") and "CROWDS_AS_THINGS" not in what


def test_nothing_to_learn_from_would_break_training(dataset):
    mark_as_crowds(dataset, 5, 7, 9)
    report = dataset.check()
    assert report.breaks and len(said(report, "no_target")) == 1
    mark_as_crowds(dataset)
    assert not dataset.check().breaks
    for number in range(3):
        write_panoptic_png(np.zeros((12, 16), int), dataset.png(number))
    assert len(said(dataset.check(), "no_target")) == 1
    dataset.png(1).unlink()  # it may have had a target
    assert not said(dataset.check(), "no_target")


@pytest.mark.parametrize("all_stuff", [False, True])
def test_stuff_in_parts_counts_the_images(dataset, all_stuff):
    for category in dataset.content["categories"]:
        category["isthing"] = int(not all_stuff and category["id"] != 9)
    for number in (0, 2):
        dataset.segments(number)[3]["category_id"] = 9
    (what,) = said(dataset.check(), "stuff_in_parts")
    assert what.startswith("2 of 3 images, most often of ['sky']")
    assert ("isthing: 1" in what) == all_stuff


def test_stuff_as_one_segment_costs_nothing(dataset):
    """A semantic dataset: no category is a thing, and none is said to be one."""
    for category in dataset.content["categories"]:
        category["isthing"] = 0
    assert not dataset.check().findings.counts


def test_void_around_things_alone_has_its_share(dataset):
    dataset.content["categories"][2]["isthing"] = True
    (what,) = said(dataset.check(), "void_background")
    assert what.startswith("16.7% of the pixels are void")

"""Trainings without anything to learn from are refused, whatever the reason."""

import numpy as np
import pytest

from detr_d2.data.panoptic_png import write_panoptic_png
from detr_d2.data.required_targets import require_targets


@pytest.fixture
def record(tmp_path):
    """Makes the dict of an image whose PNG has these ids."""

    def make(ids, *segments):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.png"
        write_panoptic_png(np.array([ids]), path)
        return {"pan_seg_file_name": str(path), "segments_info": list(segments)}

    return make


OBJECT = {"id": 5, "category_id": 0, "iscrowd": 0}
CROWD = {"id": 7, "category_id": 0, "iscrowd": 1}


def test_the_reasons_are_counted(record):
    dicts = [record([0]), record([7], CROWD), record([7], CROWD), record([0, 7], OBJECT, CROWD)]
    with pytest.raises(ValueError) as caught:
        require_targets(dicts, ["a", "b"])
    for part in (
        "a, b: nothing to learn from. Of 4 images",
        "1 have no segment",
        "2 have nothing but crowds (2 of them)",
        "1 have no pixel of their segments",
        "DATASETS.CROWDS_AS_THINGS True",
    ):
        assert part in str(caught.value)


def test_one_target_in_any_image_is_enough(record):
    require_targets([record([0]), record([7], CROWD), record([5], OBJECT)], ["a"])


def test_pngs_are_read_until_there_is_a_target(record):
    first, second = record([5], OBJECT), record([5], OBJECT)
    second["pan_seg_file_name"] = "not read"
    require_targets([first, second], ["a"])
    require_targets([{**OBJECT, **second}], ["a"])  # training itself says that it isn't there


@pytest.mark.parametrize("iscrowd", [0, 1])
def test_instances_without_panoptic_annotation(iscrowd):
    dicts = [{"annotations": []}, {"annotations": [{"iscrowd": iscrowd}]}]
    if not iscrowd:
        require_targets(dicts, ["a"])
        return
    with pytest.raises(ValueError, match=r"1 have no segment, 1 have nothing but crowds \(1 of"):
        require_targets(dicts, ["a"])

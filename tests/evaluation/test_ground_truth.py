"""The annotation of one image, and how errors name the image."""

import numpy as np
import pytest

from detr_d2.data.panoptic_png import write_panoptic_png
from detr_d2.evaluation import GroundTruth

SEGMENTS = [{"id": 5, "category_id": 1}, {"id": 7, "category_id": 0, "iscrowd": 1}]


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "gt.png"
    write_panoptic_png(np.array([[5, 5, 7], [0, 5, 7]]), path)
    return str(path)


def test_a_prediction_is_matched(png):
    truth = GroundTruth.read(png, SEGMENTS, "image 3")
    ids = np.array([[1, 1, 2], [0, 1, 2]])
    predicted = [{"id": 1, "category_id": 1}, {"id": 2, "category_id": 0}]
    matching = truth.match(ids, predicted, num_classes=2)
    assert matching.is_true_positive.tolist() == [True, False]
    assert matching.is_ignored.tolist() == [False, True]


def test_errors_name_the_image_and_say_what_is_wrong_with_the_png(png):
    with pytest.raises(ValueError, match="image 3: .* segment 5 more than once"):
        GroundTruth.read(png, [SEGMENTS[0]] * 2, "image 3")
    with pytest.raises(FileNotFoundError):
        GroundTruth.read(png + "x", SEGMENTS, "image 3")
    swapped = [{"id": 5 << 16, "category_id": 0}, {"id": 7 << 16, "category_id": 0}]
    truth = GroundTruth.read(png, swapped, "image 3")
    with pytest.raises(ValueError, match="image 3: .*lacks .*written as BGR"), truth.naming_image():
        truth.match(np.zeros((2, 3), dtype=int), [], 2)

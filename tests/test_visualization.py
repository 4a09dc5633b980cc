"""Pictures: sizes, empty predictions, boxes of a model without masks."""

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances

from detr_d2.visualization import below, beside, draw_ground_truth, draw_prediction, enlarge


@pytest.fixture
def metadata(small_shapes):
    return MetadataCatalog.get("small_shapes_val")


def test_nothing_predicted_leaves_the_image(metadata):
    image = np.full((96, 96, 3), 77, np.uint8)
    empty = {"panoptic_seg": (torch.zeros(96, 96, dtype=torch.int32), [])}
    picture = draw_prediction(image, empty, metadata)
    assert picture.shape == (480, 480, 3)
    assert (picture == 77).all()


def test_segments_are_tinted_where_they_are(metadata):
    image = np.full((96, 96, 3), 77, np.uint8)
    ids = torch.zeros(96, 96, dtype=torch.int32)
    ids[:, :48] = 1
    segment = {"id": 1, "category_id": 7, "isthing": False, "score": 0.9, "area": 96 * 48}
    picture = draw_prediction(image, {"panoptic_seg": (ids, [segment])}, metadata)
    assert (picture[:, 10:220] != 77).any(-1).mean() > 0.9
    assert (picture[:, 300:] == 77).all()


def test_boxes_are_drawn_for_a_model_without_masks(metadata):
    image = np.full((500, 600, 3), 77, np.uint8)
    instances = Instances((500, 600))
    instances.pred_boxes = Boxes(torch.tensor([[100.0, 100.0, 300.0, 400.0], [10, 10, 20, 20]]))
    instances.scores = torch.tensor([0.9, 0.1])
    instances.pred_classes = torch.tensor([0, 1])
    picture = draw_prediction(image, {"instances": instances}, metadata)
    assert (picture[250, 95:105] != 77).any()
    assert (picture[5:25, 5:25] == 77).all()  # the other score is too low


def test_ground_truth_shows_every_dataset_image(small_shapes):
    from detr_d2.data.panoptic_dataset import get_panoptic_dicts

    for dataset_dict in get_panoptic_dicts(["small_shapes_val"]):
        picture = draw_ground_truth(dataset_dict, MetadataCatalog.get("small_shapes_val"))
        factor = picture.shape[0] // dataset_dict["height"]
        assert picture.shape == (factor * dataset_dict["height"], factor * dataset_dict["width"], 3)


def test_sheets():
    tall, wide = np.zeros((30, 10, 3), np.uint8), np.zeros((20, 40, 3), np.uint8)
    assert beside([tall, tall]).shape == (30, 28, 3)
    sheet = below([tall, wide])
    assert sheet.shape == (30 + 8 + 20, 40, 3)
    assert (sheet[:30, 10:] == 255).all()


@pytest.mark.parametrize(("size", "expected"), [((96, 80), (480, 400)), ((500, 20), (500, 20))])
def test_only_small_images_are_enlarged(size, expected):
    assert enlarge(np.zeros((*size, 3), np.uint8)).shape[:2] == expected

"""Pictures: sizes, empty predictions, boxes of a model without masks, both kinds of annotation."""

import copy

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import Metadata, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from detr_d2.data.image_file import read_image
from detr_d2.data.panoptic_dataset import get_dataset_dicts
from detr_d2.data.panoptic_png import write_panoptic_png
from detr_d2.visualization import (
    MAX_PICTURE_SIZE,
    below,
    beside,
    draw_ground_truth,
    draw_prediction,
    enlarge,
    fitted,
)


def draw_truth(dataset_dict: dict, metadata: Metadata) -> np.ndarray:
    """As evaluations and reports draw it."""
    return draw_ground_truth(
        fitted(read_image(dataset_dict["file_name"], "RGB")), dataset_dict, metadata
    )


@pytest.fixture
def metadata(small_shapes):
    return MetadataCatalog.get("small_shapes_val")


def test_nothing_predicted_leaves_the_image(metadata):
    image = np.full((96, 96, 3), 77, np.uint8)
    empty = {"panoptic_seg": (torch.zeros(96, 96, dtype=torch.int32), [])}
    picture = draw_prediction(fitted(image), empty, metadata)
    assert picture.shape == (480, 480, 3)
    assert (picture == 77).all()


def test_segments_are_tinted_where_they_are(metadata):
    image = np.full((96, 96, 3), 77, np.uint8)
    ids = torch.zeros(96, 96, dtype=torch.int32)
    ids[:, :48] = 1
    segment = {"id": 1, "category_id": 7, "isthing": False, "score": 0.9, "area": 96 * 48}
    picture = draw_prediction(fitted(image), {"panoptic_seg": (ids, [segment])}, metadata)
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
    for dataset_dict in get_dataset_dicts(["small_shapes_val"]):
        before = copy.deepcopy(dataset_dict)
        picture = draw_truth(dataset_dict, MetadataCatalog.get("small_shapes_val"))
        assert dataset_dict == before
        factor = picture.shape[0] // dataset_dict["height"]
        assert picture.shape == (factor * dataset_dict["height"], factor * dataset_dict["width"], 3)


BLUE = np.array([31, 61, 91], np.uint8)


@pytest.fixture
def instance_dict(tmp_path) -> dict:
    """An image with two instances, too small to be drawn as it is."""
    Image.fromarray(np.tile(BLUE, (60, 80, 1))).save(tmp_path / "image.png")
    polygon = [10.0, 10.0, 30.0, 10.0, 30.0, 50.0, 10.0, 50.0]
    mask = np.zeros((60, 80), np.uint8, order="F")
    mask[20:40, 50:70] = 1
    return {
        "file_name": str(tmp_path / "image.png"),
        "height": 60,
        "width": 80,
        "annotations": [
            {
                "bbox": [10, 10, 20, 40],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": 0,
                "segmentation": [polygon],
            },
            {
                "bbox": [50.0, 20.0, 70.0, 40.0],
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": 1,
                "segmentation": mask_util.encode(mask),
                "iscrowd": 1,
            },
        ],
    }


@pytest.mark.parametrize("colors", [{}, {"thing_colors": [[250, 10, 10], [10, 250, 10]]}])
def test_ground_truth_of_instances(instance_dict, colors):
    metadata = Metadata(thing_classes=["cat", "dog"], **colors)
    picture = draw_truth(instance_dict, metadata)
    assert picture.shape == (360, 480, 3)  # six times as large
    assert (picture == draw_truth(instance_dict, metadata)).all()  # the same each time
    changed = (picture != BLUE).any(-1)
    assert changed[65:295, 65:175].mean() > 0.9 and changed[125:235, 305:415].mean() > 0.9
    assert not changed[:, 190:290].any()
    if colors:
        assert picture[150:200, 70:100, 0].mean() > 120 > picture[150:200, 70:100, 1].mean()

    # Without masks, boxes alone.
    del instance_dict["annotations"][1]["segmentation"]
    changed = (draw_truth(instance_dict, metadata) != BLUE).any(-1)
    assert changed[100:200, 58:63].any(1).all() and changed[150:200, 298:303].any(1).all()
    assert not changed[180:230, 320:400].any()


def test_ground_truth_without_instances(instance_dict):
    instance_dict["annotations"] = []
    picture = draw_truth(instance_dict, Metadata(thing_classes=["cat"]))
    assert picture.shape == (360, 480, 3) and (picture == BLUE).all()


def test_no_instance_predicted_leaves_the_image(metadata):
    instances = Instances((500, 600), scores=torch.zeros(0), pred_boxes=Boxes(torch.zeros(0, 4)))
    instances.pred_classes = torch.zeros(0, dtype=torch.int64)
    image = np.full((500, 600, 3), 77, np.uint8)
    for named in (metadata, MetadataCatalog.get("coco_2017_val")):
        picture = draw_prediction(image, {"instances": instances}, named)
        assert (picture == 77).all()


def test_pictures_are_put_together():
    tall, wide = np.zeros((30, 10, 3), np.uint8), np.zeros((20, 40, 3), np.uint8)
    assert beside([tall, tall]).shape == (30, 28, 3)
    joined = below([tall, wide])
    assert joined.shape == (30 + 8 + 20, 40, 3)
    assert (joined[:30, 10:] == 255).all()


@pytest.mark.parametrize(("size", "expected"), [((96, 80), (480, 400)), ((500, 20), (500, 20))])
def test_only_small_images_are_enlarged(size, expected):
    assert enlarge(np.zeros((*size, 3), np.uint8)).shape[:2] == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [((96, 80), (480, 400)), ((640, 500), (640, 500)), ((1300, 900), (640, 443))],
)
def test_pictures_have_a_longest_side(size, expected):
    assert fitted(np.zeros((*size, 3), np.uint8)).shape == (*expected, 3)


@pytest.mark.parametrize("size", [(length, 3) for length in range(1, 2000, 7)] + [(2, 30000)])
def test_no_picture_is_longer(size):
    picture = fitted(np.zeros((*size, 3), np.uint8))
    assert max(picture.shape) <= MAX_PICTURE_SIZE and min(picture.shape) >= 1


@pytest.fixture
def large_dict(tmp_path) -> dict:
    """An image of 1280×1600 pixels whose left half is one segment, and one instance."""
    Image.fromarray(np.tile(BLUE, (1280, 1600, 1))).save(tmp_path / "image.png")
    ids = np.zeros((1280, 1600), np.int32)
    ids[:, :800] = 70000
    write_panoptic_png(ids, tmp_path / "ids.png")
    segment = {"id": 70000, "category_id": 0, "isthing": True}
    mask = mask_util.encode(np.asfortranarray((ids > 0).astype(np.uint8)))
    size = {"file_name": str(tmp_path / "image.png"), "height": 1280, "width": 1600}
    thing = {"bbox": [0, 0, 800, 1280], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    polygon = [0.0, 0.0, 800.0, 0.0, 800.0, 1280.0, 0.0, 1280.0]
    return {
        "panoptic": {
            **size,
            "pan_seg_file_name": str(tmp_path / "ids.png"),
            "segments_info": [segment],
        },
        "polygons": {**size, "annotations": [{**thing, "segmentation": [polygon]}]},
        "rle": {**size, "annotations": [{**thing, "segmentation": mask}]},
    }


@pytest.mark.parametrize("kind", ["panoptic", "polygons", "rle"])
def test_annotation_of_a_large_image_shrinks_with_it(large_dict, kind):
    changed = (draw_truth(large_dict[kind], Metadata(thing_classes=["cat"])) != BLUE).any(-1)
    assert changed.shape == (512, 640)
    assert changed[5:505, 5:315].mean() > 0.95 and not changed[:, 330:].any()


@pytest.mark.parametrize("as_tensor", [True, False])
def test_predictions_of_a_large_image_shrink_with_it(as_tensor):
    picture = fitted(np.full((1280, 1600, 3), 77, np.uint8))
    ids = np.zeros((1280, 1600), np.int32)
    ids[:, :800] = 1
    segment = {"id": 1, "category_id": 0, "isthing": True, "score": 0.9}
    prediction = {"panoptic_seg": (torch.from_numpy(ids) if as_tensor else ids, [segment])}
    drawn = draw_prediction(picture, prediction, Metadata(thing_classes=["cat"]))
    changed = (drawn != 77).any(-1)
    assert changed[:, 5:315].mean() > 0.95 and not changed[:, 320:].any()


def test_boxes_of_a_large_image_shrink_with_it():
    instances = Instances((1280, 1600), scores=torch.tensor([0.9]))
    instances.pred_boxes = Boxes(torch.tensor([[200.0, 400.0, 800.0, 1200.0]]))
    instances.pred_classes = torch.tensor([0])
    picture = fitted(np.full((1280, 1600, 3), 77, np.uint8))
    changed = (
        draw_prediction(picture, {"instances": instances}, Metadata(thing_classes=["cat"])) != 77
    ).any(-1)
    assert changed[200:460, 77:84].any(1).all() and changed[200:460, 317:324].any(1).all()
    assert not changed[:, 330:].any() and not changed[490:].any()

"""Annotated boxes and masks to the model's targets, without and with augmentation.

The image of these tests says by its grey value which instance a pixel belongs to, so that masks
can be checked against the image that they come with.
"""

import copy
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from detr_d2.data.dataset_mapper import DetrDatasetMapper
from detr_d2.data.panoptic_png import write_panoptic_png

HEIGHT, WIDTH = 40, 60
# Grey value of the i-th annotation is (i + 1) · STEP.
STEP = 60


def rectangle(left: int, top: int, right: int, bottom: int) -> list[float]:
    return [float(x) for x in (left, top, right, top, right, bottom, left, bottom)]


def rle(mask: np.ndarray) -> dict:
    return mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))


def rows_and_columns(*blocks: tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for block in blocks:
        mask[block] = True
    return mask


# An angle, two parts, and a crowd; none covers another.
MASKS = [
    rows_and_columns((slice(5, 25), slice(10, 15)), (slice(20, 25), slice(10, 30))),
    rows_and_columns((slice(2, 10), slice(40, 50)), (slice(20, 30), slice(45, 55))),
    rows_and_columns((slice(32, 40), slice(0, 60))),
]
BOXES = [[10, 5, 30, 25], [40, 2, 55, 30]]


@pytest.fixture
def record(tmp_path) -> dict:
    grey = sum((i + 1) * STEP * mask for i, mask in enumerate(MASKS)).astype(np.uint8)
    Image.fromarray(np.stack([grey] * 3, axis=2)).save(tmp_path / "image.png")
    annotations = [
        {
            "bbox": [10, 5, 20, 20],
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": 4,
            "segmentation": rle(MASKS[0]),
        },
        {
            "bbox": [40.0, 2.0, 55.0, 30.0],
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": 0,
            "segmentation": [rectangle(40, 2, 50, 10), rectangle(45, 20, 55, 30)],
            "iscrowd": 0,
        },
        {
            "bbox": [0, 32, 60, 8],
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": 2,
            "segmentation": rle(MASKS[2]),
            "iscrowd": 1,
        },
    ]
    return {
        "file_name": str(tmp_path / "image.png"),
        "image_id": 1,
        "height": HEIGHT,
        "width": WIDTH,
        "annotations": annotations,
    }


def make_mapper(*augmentations: T.Augmentation, **changes: object) -> DetrDatasetMapper:
    options = {"is_train": True, "image_format": "RGB", "num_classes": 5, "with_masks": True}
    options |= changes
    return DetrDatasetMapper(augmentations=list(augmentations), **options)


def one_box(record: dict, box: list[float], mode: BoxMode = BoxMode.XYXY_ABS) -> dict:
    annotation = {"bbox": box, "bbox_mode": mode, "category_id": 1}
    return {**record, "annotations": [annotation]}


def test_targets_are_what_is_annotated(record):
    result = make_mapper()(record)
    instances = result["instances"]
    assert "annotations" not in result
    assert instances.image_size == (HEIGHT, WIDTH)
    assert instances.gt_classes.tolist() == [4, 0]  # without the crowd
    assert instances.gt_classes.dtype == torch.int64
    assert instances.gt_boxes.tensor.tolist() == BOXES
    assert instances.gt_boxes.tensor.dtype == torch.float32
    assert instances.gt_masks.tensor.dtype == torch.bool
    np.testing.assert_array_equal(instances.gt_masks.tensor, MASKS[:2])


def test_without_masks_boxes_are_enough(record):
    for annotation in record["annotations"]:
        del annotation["segmentation"]
    instances = make_mapper(with_masks=False)(record)["instances"]
    assert instances.gt_boxes.tensor.tolist() == BOXES and not instances.has("gt_masks")


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # in fvcore
def test_annotation_moves_as_the_image_does(record, augmentations):
    np.random.seed(0)
    mapper = make_mapper(*augmentations)
    for _ in range(20):
        result = mapper(record)
        grey, instances = result["image"][0], result["instances"]
        assert instances.image_size == tuple(grey.shape)
        found = dict(zip(instances.gt_classes.tolist(), range(2), strict=False))
        for i, class_id in enumerate((4, 0)):
            shown = grey == (i + 1) * STEP
            if class_id not in found:
                assert not shown.any()
                continue
            assert torch.equal(instances.gt_masks.tensor[found[class_id]], shown)
            left, top, right, bottom = map(int, instances.gt_boxes.tensor[found[class_id]])
            assert shown[top:bottom, left:right].sum() == shown.sum()


def test_boxes_are_flipped_exactly(record):
    instances = make_mapper(T.RandomFlip(1.0))(record)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[30, 5, 50, 25], [5, 2, 20, 30]]


def test_resizing(record):
    instances = make_mapper(T.Resize((2 * HEIGHT, 3 * WIDTH)))(record)["instances"]
    scaled = torch.tensor(BOXES) * torch.tensor([3, 2, 3, 2])
    assert instances.gt_boxes.tensor.tolist() == scaled.tolist()
    expected = np.array(MASKS[:2]).repeat(2, axis=1).repeat(3, axis=2)
    np.testing.assert_array_equal(instances.gt_masks.tensor, expected)


def test_boxes_of_integers_are_not_rounded(record):
    mapper = make_mapper(T.Resize((50, 75)), with_masks=False)
    boxes = mapper(one_box(record, [10, 5, 30, 25]))["instances"].gt_boxes.tensor
    assert boxes.tolist() == [[12.5, 6.25, 37.5, 31.25]]


def test_a_crop_cuts_boxes_and_drops_those_outside(record):
    # A corner of the first one's box, without any of its pixels; nothing of the second one.
    instances = make_mapper(T.CropTransform(20, 0, 20, 12))(record)["instances"]
    assert instances.gt_classes.tolist() == [4]
    assert instances.gt_boxes.tensor.tolist() == [[0, 5, 10, 12]]
    assert instances.gt_masks.tensor.shape == (1, 12, 20) and not instances.gt_masks.tensor.any()


@pytest.mark.parametrize("with_masks", [True, False])
@pytest.mark.parametrize("cropped", [True, False])
def test_no_targets_at_all(record, with_masks, cropped):
    record["annotations"] = record["annotations"][:2] if cropped else []
    crop = T.CropTransform(0, 30, 10, 8)  # touches none
    instances = make_mapper(crop, with_masks=with_masks)(record)["instances"]
    assert len(instances) == 0 and instances.image_size == (8, 10)
    assert instances.gt_classes.shape == (0,) and instances.gt_classes.dtype == torch.int64
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.has("gt_masks") is with_masks
    if with_masks:
        assert instances.gt_masks.tensor.shape == (0, 8, 10)
        assert instances.gt_masks.tensor.dtype == torch.bool


def test_boxes_are_clipped_to_the_image(record):
    mapper = make_mapper(with_masks=False)
    instances = mapper(one_box(record, [-5, 30, 20, 25], BoxMode.XYWH_ABS))["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[0, 30, 15, 40]]


@pytest.mark.parametrize("box", [[10, 5, 10, 25], [10, 5, 30, 5], [60, 5, 70, 25], [0, -9, 9, 0]])
def test_boxes_without_area_are_no_targets(record, box):
    assert len(make_mapper(with_masks=False)(one_box(record, box))["instances"]) == 0


def test_keypoints_are_ignored(record):
    """Detectron2 would want to know how to flip them."""
    record["annotations"][0]["keypoints"] = [12.0, 8.0, 2]
    instances = make_mapper(T.RandomFlip(1.0))(record)["instances"]
    assert len(instances) == 2 and not instances.has("gt_keypoints")


@pytest.mark.parametrize("wrong", [-1, 5])
def test_a_class_out_of_range_is_named(record, wrong):
    record["annotations"][1]["category_id"] = wrong
    message = rf"image\.png: annotation 1 has class {wrong}, outside 0 … 4 .*NUM_CLASSES"
    for with_masks in (True, False):
        with pytest.raises(ValueError, match=message):
            make_mapper(with_masks=with_masks)(record)


@pytest.mark.parametrize("missing", [None, [], {}])
def test_masks_are_wanted_but_not_annotated(record, missing):
    record["annotations"][1]["segmentation"] = missing
    with pytest.raises(ValueError, match=r"image\.png: annotation 1 has no segm.*MASK_ON to False"):
        make_mapper()(record)
    del record["annotations"][2]["segmentation"]  # the crowd's
    record["annotations"][1]["segmentation"] = [rectangle(40, 2, 55, 30)]
    assert len(make_mapper()(record)["instances"]) == 2


def test_a_mask_of_another_size_is_named(record):
    record["annotations"][0]["segmentation"] = rle(np.ones((WIDTH, HEIGHT)))
    message = r"image\.png: annotation 0 has a mask of 60×40 .*its image has 40×60"
    with pytest.raises(ValueError, match=message):
        make_mapper()(record)


def test_a_dict_without_annotation_is_named(record):
    del record["annotations"]
    with pytest.raises(ValueError, match=r"image\.png: nothing to train on.*pan_seg_.*annotations"):
        make_mapper()(record)
    assert "instances" not in make_mapper(is_train=False)(record)


def test_panoptic_annotation_comes_first(record, tmp_path):
    """As in Detectron2's datasets that have both, where the PNG has the stuff as well."""
    write_panoptic_png(np.full((HEIGHT, WIDTH), 7), tmp_path / "panoptic.png")
    record["pan_seg_file_name"] = str(tmp_path / "panoptic.png")
    record["segments_info"] = [{"id": 7, "category_id": 3}]
    assert make_mapper()(record)["instances"].gt_classes.tolist() == [3]


def test_the_dict_is_left_alone(record):
    kept = copy.deepcopy(record)
    for is_train in (True, False):
        make_mapper(T.RandomFlip(1.0), is_train=is_train)(record)
    assert record == kept


def test_the_config_decides_on_masks(tiny_cfg):
    for mask_on in (True, False):
        tiny_cfg.MODEL.DETR.MASK_ON = mask_on
        assert DetrDatasetMapper(tiny_cfg, is_train=True).with_masks is mask_on


def test_a_damaged_image_is_named(record):
    Path(record["file_name"]).write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"image\.png: cannot be read"):
        make_mapper()(record)

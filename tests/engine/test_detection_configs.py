"""The datasets, classes, backbones, stages and schedules of the configs for COCO."""

import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog

from detr_d2 import config_file, load_config
from detr_d2.data.categories import check_num_classes

CONFIGS = Path(config_file("Base-DETR.yaml")).parent
NAMES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
PANOPTIC = ("coco_2017_train_panoptic", "coco_2017_val_panoptic", 133)
DETECTION = ("coco_2017_train", "coco_2017_val", 80)
BOTH, BOXES = ["boxes", "masks"], ["boxes"]
# Name → (datasets and classes, depth, dilation of res5, stages, epochs, epochs before the drop).
EXPECTED = {
    "detr_panoptic": (PANOPTIC, 50, 1, BOTH, 300, 200),
    "detr_panoptic_R50_DC5": (PANOPTIC, 50, 2, BOTH, 300, 200),
    "detr_panoptic_R101": (PANOPTIC, 101, 1, BOTH, 300, 200),
    "detr_panoptic_boxes": (PANOPTIC, 50, 1, BOXES, 300, 200),
    "detr_panoptic_R50_DC5_boxes": (PANOPTIC, 50, 2, BOXES, 300, 200),
    "detr_panoptic_R101_boxes": (PANOPTIC, 101, 1, BOXES, 300, 200),
    "detr_detection": (DETECTION, 50, 1, BOXES, 500, 400),
    "detr_detection_R50_DC5": (DETECTION, 50, 2, BOXES, 500, 400),
    "detr_detection_R101": (DETECTION, 101, 1, BOXES, 500, 400),
    "detr_detection_R101_DC5": (DETECTION, 101, 2, BOXES, 500, 400),
}


def test_these_are_all():
    others = {"Base-DETR.yaml", "finetune_panoptic.yaml", "shapes/detr_panoptic.yaml"}
    others |= {"detr_panoptic_pixel.yaml", "camvid/efficientnet_lite0.yaml"}  # see below
    assert set(NAMES) == {f"{name}.yaml" for name in EXPECTED} | others


@pytest.mark.parametrize("name", EXPECTED)
def test_what_a_config_names(name):
    cfg = load_config(config_file(f"{name}.yaml"))
    (train_name, val_name, num_classes), depth, dilation, stages, *epochs = EXPECTED[name]
    assert cfg.DATASETS.TRAIN == (train_name,) and cfg.DATASETS.TEST == (val_name,)
    assert {train_name, val_name} <= set(DatasetCatalog.list())
    check_num_classes(cfg, train_name)
    check_num_classes(cfg, val_name)
    assert cfg.MODEL.DETR.NUM_CLASSES == num_classes
    assert (cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES5_DILATION) == (depth, dilation)
    assert cfg.MODEL.WEIGHTS == f"torchvision://resnet{depth}"
    assert cfg.SOLVER.STAGES == stages
    assert cfg.MODEL.DETR.MASK_ON is ("masks" in stages)
    iterations = (cfg.SOLVER.MAX_ITER, *cfg.SOLVER.STEPS)
    for count, wanted in zip(iterations, epochs, strict=True):
        assert count * cfg.SOLVER.IMS_PER_BATCH / 118_287 == pytest.approx(wanted, rel=0.01)
    # There is an evaluation every tenth epoch, including the last one.
    assert cfg.SOLVER.MAX_ITER % cfg.TEST.EVAL_PERIOD == 0
    assert cfg.TEST.EVAL_PERIOD * cfg.SOLVER.IMS_PER_BATCH / 118_287 == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_says_what_a_config_is(name):
    lines = (CONFIGS / name).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ") and "_BASE_" in "".join(lines) or name == "Base-DETR.yaml"


def test_a_pixel_head_is_trained_on_the_released_detector():
    """Its detector needs COCO's classes, and its mask stage an epoch count of its own."""
    cfg, base = (
        load_config(config_file(f"{name}.yaml"))
        for name in ("detr_panoptic_pixel", "detr_panoptic")
    )
    assert cfg.MODEL.DETR.MASK_HEAD.NAME == "PixelEmbeddingMaskHead"
    assert cfg.SOLVER.STAGES == ["masks"] and cfg.MODEL.DETR.RESIZE_ON_LOAD
    assert cfg.MODEL.DETR.FROZEN_WEIGHTS.endswith("detr-r50-panoptic-00ce5173.pth")
    assert cfg.MODEL.DETR.NUM_CLASSES == base.MODEL.DETR.NUM_CLASSES
    stage = cfg.SOLVER.MASK_STAGE
    epochs = [n * stage.IMS_PER_BATCH / 118_287 for n in (stage.MAX_ITER, *stage.STEPS)]
    assert epochs == pytest.approx([12, 8], rel=0.01)


def test_a_frozen_backbone_of_timm_learns_camvid():
    cfg = load_config(config_file("camvid/efficientnet_lite0.yaml"))
    assert f"timm://{cfg.MODEL.TIMM.NAME}.in1k" == cfg.MODEL.WEIGHTS
    assert cfg.MODEL.BACKBONE.FREEZE_AT == 5 and cfg.MODEL.DETR.FEATURE_CACHE_GB > 0
    categories = json.loads((CONFIGS / "camvid" / "categories.json").read_text())
    mapping = json.loads((CONFIGS / "camvid" / "mapping.json").read_text())
    ids = [category["id"] for category in categories]
    assert list(mapping) == [str(value) for value in range(12)]
    assert list(mapping.values()) == [*ids, None]
    assert [c["id"] for c in categories if c["isthing"]] == [9, 10, 11]

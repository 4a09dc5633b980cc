"""Converts annotations of several kinds to COCO's panoptic format."""

from detr_d2.data.prepare.cityscapes import prepare_cityscapes
from detr_d2.data.prepare.coco_instances import prepare_instances
from detr_d2.data.prepare.dataset_split import split_panoptic
from detr_d2.data.prepare.labelme import prepare_labelme
from detr_d2.data.prepare.problems import PreparationError, PreparationReport
from detr_d2.data.prepare.semantic_images import prepare_semantic

__all__ = [
    "PreparationError",
    "PreparationReport",
    "prepare_cityscapes",
    "prepare_instances",
    "prepare_labelme",
    "prepare_semantic",
    "split_panoptic",
]

"""Annotations of all kinds → COCO's panoptic format."""

from detr_d2.preparation.cityscapes import prepare_cityscapes
from detr_d2.preparation.errors import PreparationError, Report
from detr_d2.preparation.instances import prepare_instances
from detr_d2.preparation.labelme import prepare_labelme
from detr_d2.preparation.semantic import prepare_semantic
from detr_d2.preparation.split import split_panoptic

__all__ = [
    "PreparationError",
    "Report",
    "prepare_cityscapes",
    "prepare_instances",
    "prepare_labelme",
    "prepare_semantic",
    "split_panoptic",
]

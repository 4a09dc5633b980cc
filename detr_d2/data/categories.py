"""What a dataset's metadata says of its classes."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog


def contiguous_ids(metadata: Metadata) -> tuple[set[int], set[int]]:
    """The contiguous class ids of (things, stuff).

    In a panoptic dataset both lists of names, ``thing_classes`` and ``stuff_classes``, hold all
    classes, so that only the maps from dataset ids tell things from stuff.
    """
    things = set(metadata.get("thing_dataset_id_to_contiguous_id", {}).values())
    stuff = set(metadata.get("stuff_dataset_id_to_contiguous_id", {}).values())
    return things, stuff - things


def check_num_classes(cfg: CfgNode, dataset_name: str) -> None:
    """Compares ``MODEL.DETR.NUM_CLASSES`` with a dataset's classes, where it has any.

    Raises:
        ValueError: they disagree.
    """
    things, stuff = contiguous_ids(MetadataCatalog.get(dataset_name))
    count = len(things | stuff)
    if count and count != cfg.MODEL.DETR.NUM_CLASSES:
        raise ValueError(
            f"MODEL.DETR.NUM_CLASSES is {cfg.MODEL.DETR.NUM_CLASSES}, but dataset "
            f"{dataset_name!r} has {count} classes ({len(things)} things and {len(stuff)} stuff). "
            f"Set MODEL.DETR.NUM_CLASSES to {count}."
        )


def thing_mask(metadata: Metadata, num_classes: int) -> torch.Tensor:
    """K bool, True for things. Without metadata every class counts as a thing."""
    things, stuff = contiguous_ids(metadata)
    is_thing = torch.ones(num_classes, dtype=torch.bool)
    is_thing[sorted(stuff)] = False
    return is_thing

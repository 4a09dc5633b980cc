"""Turns instance annotations in Detectron2's dicts, such as COCO's, into targets of training.

Axes: T instances of an image; H×W its pixels, H'×W' those after augmentation.
"""

from __future__ import annotations

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Instances, polygons_to_bitmask


def read_annotated_instances(
    image_dict: dict,
    annotations: list[dict],
    transforms: T.TransformList,
    image_size: tuple[int, int],
    *,
    num_classes: int,
    with_masks: bool,
) -> Instances:
    """Reads annotations and transforms them like their image.

    Crowds are left out, as they are no targets, and so are instances whose box lies outside the
    crop. Boxes are the annotated ones, clipped to the image; cropped masks don't change them.

    Args:
        image_dict: ``file_name``, for messages, ``height`` and ``width``.
        annotations: dicts with ``bbox``, ``bbox_mode``, ``category_id`` (contiguous), ``iscrowd``
            (default: 0) and, where masks are wanted, ``segmentation``.
        transforms: what was done to the image.
        image_size: (H', W').
        num_classes: K; classes are 0 … K-1.
        with_masks: whether masks are wanted.

    Returns:
        T instances with ``gt_classes``, ``gt_boxes`` and, if wanted, ``gt_masks``.

    Raises:
        ValueError: a class is out of range, or a wanted mask is missing or of another size than
            the image; the message names the image and the annotation's place.
    """
    moved = []
    for place, annotation in enumerate(annotations):
        where = f"{image_dict['file_name']}: annotation {place}"
        if not 0 <= annotation["category_id"] < num_classes:
            raise ValueError(
                f"{where} has class {annotation['category_id']}, outside 0 … {num_classes - 1} "
                "(MODEL.DETR.NUM_CLASSES)."
            )
        if annotation.get("iscrowd", 0):
            continue
        box = {key: annotation[key] for key in ("bbox_mode", "category_id")}
        # Transforms would round the coordinates of a box of integers.
        box["bbox"] = [float(coordinate) for coordinate in annotation["bbox"]]
        one = detection_utils.transform_instance_annotations(box, transforms, image_size)
        if with_masks:
            if not annotation.get("segmentation"):
                raise ValueError(
                    f"{where} has no segmentation, from which masks could be learned. For boxes "
                    "alone, set MODEL.DETR.MASK_ON to False and SOLVER.STAGES to ['boxes']."
                )
            size = (image_dict["height"], image_dict["width"])
            mask = annotation_mask(annotation["segmentation"], size, where)
            one["segmentation"] = transforms.apply_segmentation(mask)
        moved.append(one)
    instances = detection_utils.annotations_to_instances(moved, image_size, mask_format="bitmask")
    if with_masks and not moved:  # where Detectron2 sets none
        instances.gt_masks = BitMasks(torch.zeros(0, *image_size, dtype=torch.bool))
    return instances[instances.gt_boxes.nonempty()]


def annotation_mask(
    segmentation: list[list[float]] | dict, size: tuple[int, int], where: str
) -> np.ndarray:
    """The pixels of an instance.

    Augmentation transforms pixels and not polygons: cropping polygons would need another package,
    and the masks of panoptic PNGs and of the reference are made so, too.

    Args:
        segmentation: polygons, or COCO's compressed RLE.
        size: (H, W) of the image.
        where: which annotation it is, for messages.

    Returns:
        H×W uint8, 0 or 1.

    Raises:
        ValueError: an RLE has another size.
    """
    if isinstance(segmentation, list):
        return polygons_to_bitmask(segmentation, *size).astype(np.uint8)
    height, width = segmentation["size"]
    if (height, width) != size:
        raise ValueError(
            f"{where} has a mask of {height}×{width} pixels (height × width), but its image has "
            f"{size[0]}×{size[1]}."
        )
    return mask_util.decode(segmentation)

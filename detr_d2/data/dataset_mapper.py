"""Turns a dataset's dict into the model's input: reads and augments one image and its annotation.

Axes: T segments of an image; H×W its pixels.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import Instances

from detr_d2.config_checks import check_config
from detr_d2.data.categories import resolve_classes
from detr_d2.data.image_file import DEFAULT_OPTIONS, ImageOptions, explain_size, read_image
from detr_d2.data.instance_annotations import read_annotated_instances
from detr_d2.data.mistaken_png import why_ids_differ
from detr_d2.data.panoptic_fields import is_crowd
from detr_d2.data.panoptic_png import MAX_SEGMENT_ID, read_panoptic_png
from detr_d2.data.segment_masks import SegmentMasks

# Longest side of an image that a crop is taken from. Without this limit, as in the reference, an
# image of 20000×1 pixels would grow to 7 billion. Photographs of up to 1:13 don't reach it.
MAX_SIZE_TO_CROP = 8000


class DetrDatasetMapper:
    """Reads an image and, for training, its targets.

    Targets are the segments of a panoptic PNG, both things and stuff, or the annotated instances
    if there is no PNG. Crowds, void, and what a crop removes are no targets.
    """

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: list[T.Augmentation],
        image_format: str,
        num_classes: int,
        with_masks: bool,
        image_options: ImageOptions = DEFAULT_OPTIONS,
    ) -> None:
        """
        Args:
            is_train: whether annotations are read.
            augmentations: of image and annotation.
            image_format: "RGB" or "BGR".
            num_classes: K; the classes of annotations are 0 … K-1.
            with_masks: whether instances need masks.
            image_options: how image files are to be understood.
        """
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.image_options = image_options
        self.num_classes = num_classes
        self.with_masks = with_masks

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool) -> dict:
        check_config(cfg)
        classes = resolve_classes(cfg)
        return {
            "is_train": is_train,
            "augmentations": build_augmentations(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "num_classes": len(classes.names) if classes else cfg.MODEL.DETR.NUM_CLASSES,
            "with_masks": cfg.MODEL.DETR.MASK_ON,
            "image_options": ImageOptions.from_config(cfg),
        }

    def __call__(self, dataset_dict: dict) -> dict:
        """Reads one image.

        Args:
            dataset_dict: Detectron2's standard dict. For training, it has ``pan_seg_file_name`` and
                ``segments_info``, or else ``annotations``.

        Returns:
            The dict with ``image``, a 3×H×W uint8 tensor. For training, it also has ``instances``
            with ``gt_classes`` (contiguous), ``gt_boxes`` and ``gt_masks``. A panoptic PNG gives
            ``SegmentMasks``. Annotated instances may overlap and give ``BitMasks``, if the model
            needs masks.

        Raises:
            FileNotFoundError, ValueError: a file is missing or damaged, or it has no annotation or
                contradicts it; the message names the file.
        """
        result = dict(dataset_dict)
        image = read_image(result["file_name"], self.image_format, self.image_options)
        self._check_size(result, image)
        augmented = T.AugInput(image)
        transforms = self.augmentations(augmented)
        image = np.ascontiguousarray(augmented.image.transpose(2, 0, 1))
        result["image"] = torch.from_numpy(image)
        if not self.is_train:
            return result
        segments_info = result.pop("segments_info", None)
        annotations = result.pop("annotations", None)
        if "pan_seg_file_name" in result and segments_info is not None:
            result["instances"] = self._read_segments(result, segments_info, transforms)
        elif annotations is not None:
            result["instances"] = read_annotated_instances(
                result,
                annotations,
                transforms,
                image.shape[1:],
                num_classes=self.num_classes,
                with_masks=self.with_masks,
            )
        else:
            raise ValueError(
                f"{result['file_name']}: nothing to train on, its dict has neither a panoptic PNG "
                "(pan_seg_file_name, segments_info) nor instances (annotations)."
            )
        return result

    def _check_size(self, image_dict: dict, image: np.ndarray) -> None:
        """Compares the size of an image with its dict. A dict without a size gets it."""
        try:
            detection_utils.check_image_size(image_dict, image)
        except detection_utils.SizeMismatchError as error:
            expected = (image_dict["height"], image_dict["width"])
            reason = explain_size(
                image_dict["file_name"], image.shape[:2], expected, self.image_options
            )
            if not reason:
                raise
            raise ValueError(f"{error} {reason}") from error

    def _read_segments(
        self, image_dict: dict, segments_info: list[dict], transforms: T.TransformList
    ) -> Instances:
        path = image_dict["pan_seg_file_name"]
        ids = read_panoptic_png(path)
        size = (image_dict["height"], image_dict["width"])
        if ids.shape != size:
            raise ValueError(
                f"{path} has {ids.shape[0]}×{ids.shape[1]} pixels (height × width), but its image "
                f"{image_dict['file_name']} has {size[0]}×{size[1]}."
            )
        label_map = transforms.apply_segmentation(segment_label_map(ids, segments_info, path))
        for segment in segments_info:
            if not 0 <= segment["category_id"] < self.num_classes:
                raise ValueError(
                    f"{path}: segment {segment['id']} has class {segment['category_id']}, outside "
                    f"0 … {self.num_classes - 1} (MODEL.DETR.NUM_CLASSES)."
                )
        return _instances(label_map, segments_info)


def segment_label_map(ids: np.ndarray, segments_info: list[dict], path: str) -> np.ndarray:
    """Numbers the segments of a PNG by their place in ``segments_info``.

    Args:
        ids: H×W segment ids in 0 … ``MAX_SEGMENT_ID``.
        segments_info: T dicts with ``id``.
        path: of the PNG, for messages.

    Returns:
        H×W labels: 0 for void, i + 1 for segment i. They are uint8, or float32 if there are more
        than 255 segments: Detectron2 resizes these types by nearest pixels.

    Raises:
        ValueError: the PNG has ids that no segment has, two segments have one id, or an id does
            not fit a colour.
    """
    counts = Counter(segment["id"] for segment in segments_info)
    repeated = [segment_id for segment_id, count in counts.items() if count > 1]
    if repeated:
        raise ValueError(
            f"{path}: several segments of its annotation have the same id: {_some(repeated)}"
        )
    # A table is the fastest way from an id to its label. Its length costs little, since the
    # operating system makes only those pages of zeros that are used.
    label_of_id = np.zeros(
        MAX_SEGMENT_ID + 1, np.uint8 if len(segments_info) <= 255 else np.float32
    )
    for label, segment in enumerate(segments_info, start=1):
        if not 0 < segment["id"] <= MAX_SEGMENT_ID:
            raise ValueError(
                f"{path}: its annotation has a segment of the id {segment['id']}. Colours hold "
                f"1 … {MAX_SEGMENT_ID}, and 0 stands for void."
            )
        label_of_id[segment["id"]] = label
    label_map = label_of_id.take(ids)
    unknown = np.unique(ids[(label_map == 0) & (ids != 0)])
    if len(unknown):
        raise ValueError(
            f"{path} has segment ids that its annotation lacks: {_some(unknown.tolist())}"
            + why_ids_differ(path, counts)
        )
    return label_map


def _some(ids: list[int]) -> str:
    return f"{ids[:5]}{' …' if len(ids) > 5 else ''}"


def _instances(label_map: np.ndarray, segments_info: list[dict]) -> Instances:
    """The targets among T segments: no crowds, and with at least one pixel in the label map."""
    wanted = [i for i, segment in enumerate(segments_info) if not is_crowd(segment)]
    # This is a copy: a cropped map would be sent between processes with the whole map behind it.
    dtype = np.uint8 if label_map.dtype == np.uint8 else np.int32
    label_map = np.array(label_map, dtype, order="C")
    instances = Instances(label_map.shape)
    instances.gt_classes = torch.tensor(
        [segments_info[i]["category_id"] for i in wanted], dtype=torch.int64
    )
    instances.gt_masks = SegmentMasks(
        torch.from_numpy(label_map), torch.tensor([i + 1 for i in wanted], dtype=torch.int64)
    )
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    return instances[instances.gt_boxes.nonempty()]


class ResizeShortestEdge(T.ResizeShortestEdge):
    """Detectron2's resize, but the shorter side of a very long image keeps at least one pixel."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        resize = super().get_transform(image)
        if isinstance(resize, T.ResizeTransform):
            resize.new_h, resize.new_w = max(resize.new_h, 1), max(resize.new_w, 1)
        return resize


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """The reference's augmentation (paper, appendix A.4), or only the resize of evaluation.

    For training, an image is flipped half of the time. With the probability ``INPUT.CROP_PROB`` it
    is resized and cropped to a random window. At last, its shortest side is resized to one of
    ``INPUT.MIN_SIZE_TRAIN``.
    """
    if not is_train:
        return [ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)]
    augmentations = []
    if cfg.INPUT.RANDOM_FLIP != "none":
        augmentations.append(
            T.RandomFlip(
                horizontal=cfg.INPUT.RANDOM_FLIP == "horizontal",
                vertical=cfg.INPUT.RANDOM_FLIP == "vertical",
            )
        )
    if cfg.INPUT.CROP_PROB > 0:
        resize_and_crop = T.AugmentationList(
            [
                ResizeShortestEdge(cfg.INPUT.CROP_RESIZE, MAX_SIZE_TO_CROP, sample_style="choice"),
                T.RandomCrop("absolute_range", cfg.INPUT.CROP_RANGE),
            ]
        )
        augmentations.append(T.RandomApply(resize_and_crop, cfg.INPUT.CROP_PROB))
    augmentations.append(
        ResizeShortestEdge(
            cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
        )
    )
    return augmentations

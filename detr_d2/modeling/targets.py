"""The targets of an image, in the form that matcher and losses use.

Axes: T targets, n chosen ones of them; H×W an image after augmentation, H'×W' its padded batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.structures import Instances
from torchvision.ops import box_convert

from detr_d2.data.segment_masks import SegmentMasks


@dataclass(frozen=True)
class Target:
    """The segments of one image, things and stuff alike.

    Attributes:
        classes: T int64, in 0 … K-1.
        boxes_cxcywh: T×4 float32, centre and size relative to the image's own size, in [0, 1].
        masks: T×H×W bool, or as one label map where they don't overlap; None where masks are not
            trained.
    """

    classes: torch.Tensor
    boxes_cxcywh: torch.Tensor
    masks: torch.Tensor | SegmentMasks | None = None

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def from_instances(cls, instances: Instances, with_masks: bool) -> Target:
        """Reads ``gt_classes``, ``gt_boxes`` and, if wanted, ``gt_masks`` (a ``BitMasks``)."""
        height, width = instances.image_size
        boxes = instances.gt_boxes.tensor
        boxes = boxes / boxes.new_tensor([width, height, width, height])
        masks = instances.gt_masks if with_masks else None
        return cls(
            classes=instances.gt_classes,
            boxes_cxcywh=box_convert(boxes, "xyxy", "cxcywh"),
            masks=masks if masks is None or isinstance(masks, SegmentMasks) else masks.tensor,
        )

    def write_masks_to(self, padded: torch.Tensor, index: torch.Tensor) -> None:
        """Makes the masks of chosen targets where the losses compare them.

        Args:
            padded: n×H'×W' bool; what lies right of the image or below it is left as it is.
            index: n int64, the targets.
        """
        if self.masks is None:
            raise ValueError("the targets have no masks")
        masks = self.masks[index]
        if isinstance(masks, SegmentMasks):
            masks.write_to(padded)
        else:
            _, height, width = masks.shape
            padded[:, :height, :width] = masks

"""What a detector should find in an image, in the form that matcher and losses use.

Axes: T targets; H×W an image after augmentation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.structures import Instances
from torchvision.ops import box_convert


@dataclass(frozen=True)
class Target:
    """The segments of one image, things and stuff alike.

    Attributes:
        classes: T int64, in 0 … K-1.
        boxes_cxcywh: T×4 float32, centre and size relative to the image's own size, in [0, 1].
        masks: T×H×W bool, or None where masks are not trained.
    """

    classes: torch.Tensor
    boxes_cxcywh: torch.Tensor
    masks: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def from_instances(cls, instances: Instances, with_masks: bool) -> Target:
        """Reads ``gt_classes``, ``gt_boxes`` and, if wanted, ``gt_masks`` (a ``BitMasks``)."""
        height, width = instances.image_size
        boxes = instances.gt_boxes.tensor
        boxes = boxes / boxes.new_tensor([width, height, width, height])
        return cls(
            classes=instances.gt_classes,
            boxes_cxcywh=box_convert(boxes, "xyxy", "cxcywh"),
            masks=instances.gt_masks.tensor if with_masks else None,
        )

"""DETR's losses as pure functions of predictions and the targets matched to them.

Axes: B images, Q queries, K classes, N matched pairs, H×W pixels. ``num_targets`` is the number of
targets averaged over processes, by which all but the classification loss are divided.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torchvision.ops import box_convert, generalized_box_iou, sigmoid_focal_loss


def class_loss(
    logits: torch.Tensor, target_classes: torch.Tensor, no_object_weight: float
) -> torch.Tensor:
    """Cross-entropy over all queries, "no object" (the last class) weighted down.

    Args:
        logits: B×Q×(K+1).
        target_classes: B×Q int64, K for queries without target.
        no_object_weight: the weight of class K; the mean is over weights.
    """
    weight = logits.new_ones(logits.shape[-1])
    weight[-1] = no_object_weight
    return F.cross_entropy(logits.flatten(0, 1), target_classes.flatten(), weight)


def box_losses(
    boxes_cxcywh: torch.Tensor, target_boxes_cxcywh: torch.Tensor, num_targets: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """L1 distance and 1 - GIoU, summed over N×4 matched boxes.

    Returns:
        (l1, giou), each a scalar.
    """
    l1 = F.l1_loss(boxes_cxcywh, target_boxes_cxcywh, reduction="sum")
    giou = generalized_box_iou(
        box_convert(boxes_cxcywh, "cxcywh", "xyxy"),
        box_convert(target_boxes_cxcywh, "cxcywh", "xyxy"),
    ).diag()
    return l1 / num_targets, (1 - giou).sum() / num_targets


def mask_focal_loss(
    mask_logits: torch.Tensor,
    target_masks: torch.Tensor,
    num_targets: float,
    alpha: float,
    gamma: float,
) -> torch.Tensor:
    """Focal loss of N×H×W masks (floats in {0, 1}), mean over pixels, summed over masks."""
    per_pixel = sigmoid_focal_loss(mask_logits, target_masks, alpha, gamma)  # N×H×W
    return per_pixel.flatten(1).mean(1).sum() / num_targets


def dice_loss(
    mask_logits: torch.Tensor, target_masks: torch.Tensor, num_targets: float
) -> torch.Tensor:
    """1 - (2·intersection + 1) / (sum of both areas + 1), summed over N×H×W masks."""
    probabilities = mask_logits.sigmoid().flatten(1)
    target_masks = target_masks.flatten(1)
    intersection = (probabilities * target_masks).sum(1)
    areas = probabilities.sum(1) + target_masks.sum(1)
    return (1 - (2 * intersection + 1) / (areas + 1)).sum() / num_targets

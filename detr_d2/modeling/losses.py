"""DETR's losses as pure functions of predictions and the targets matched to them.

Axes: B images, Q queries, K classes, N matched pairs; … the pixels of a mask, H×W, or P points of
it. ``num_targets`` is the number of targets averaged over processes, by which all but the
classification loss are divided.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable
from torchvision.ops import box_convert, generalized_box_iou


def class_loss(
    logits: torch.Tensor,
    target_classes: torch.Tensor,
    no_object_weight: float,
    total_weight: float | None = None,
) -> torch.Tensor:
    """Cross-entropy over all queries, "no object" (the last class) weighted down.

    Args:
        logits: B×Q×(K+1).
        target_classes: B×Q int64, K for queries without target.
        no_object_weight: the weight of class K.
        total_weight: the divisor, where these queries are a part of a batch; None: the sum of
            their own weights, which makes it a mean.
    """
    weight = logits.new_ones(logits.shape[-1])
    weight[-1] = no_object_weight
    flat, classes = logits.flatten(0, 1), target_classes.flatten()
    if total_weight is None:
        return F.cross_entropy(flat, classes, weight)
    return F.cross_entropy(flat, classes, weight, reduction="sum") / total_weight


def box_losses(
    boxes_cxcywh: torch.Tensor, target_boxes_cxcywh: torch.Tensor, num_targets: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """L1 distance and 1 - GIoU, summed over N×4 matched boxes.

    Returns:
        (l1, giou), each a scalar.
    """
    l1 = F.l1_loss(boxes_cxcywh, target_boxes_cxcywh, reduction="sum")
    # Pair by pair: the function for two lists would compare all N boxes with all N others.
    giou = torch.vmap(generalized_box_iou)(
        box_convert(boxes_cxcywh, "cxcywh", "xyxy")[:, None],
        box_convert(target_boxes_cxcywh, "cxcywh", "xyxy")[:, None],
    )
    return l1 / num_targets, (1 - giou).sum() / num_targets


def mask_focal_loss(
    mask_logits: torch.Tensor,
    target_masks: torch.Tensor,
    num_targets: float,
    alpha: float,
    gamma: float,
) -> torch.Tensor:
    """Focal loss, mean over pixels, summed over masks.

    Args:
        mask_logits: N×….
        target_masks: N×… bool.
        num_targets: the divisor.
        alpha: weight of pixels inside the target, 1 - alpha outside.
        gamma: the exponent; a higher one lowers the weight of pixels that are already right.
    """
    total = _FocalSum.apply(mask_logits, target_masks, alpha, gamma)
    return total / (mask_logits.shape[1:].numel() * num_targets)


class _FocalSum(torch.autograd.Function):
    """Focal loss, summed over all pixels.

    For the gradient it keeps its arguments alone, 5 bytes a pixel. With torchvision's formula,
    autograd would keep 32 bytes a pixel.

    Let z be the logit of the wrong answer, q = sigmoid(z), and α a pixel's weight. Its loss is
    α·q^γ·softplus(z), and the derivative of that by z is α·q^γ·(q + γ·(1 - q)·softplus(z)).
    """

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, masks: torch.Tensor, alpha: float, gamma: float
    ) -> torch.Tensor:
        ctx.save_for_backward(logits, masks)
        ctx.alpha, ctx.gamma = alpha, gamma
        wrong = _choose(masks, -1, 1, logits.dtype).mul_(logits)
        loss = F.softplus(wrong)
        loss *= wrong.sigmoid_().pow_(gamma)
        del wrong  # the next line needs its memory
        loss *= _choose(masks, alpha, 1 - alpha, loss.dtype)
        return loss.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits, masks = ctx.saved_tensors
        wrong = _choose(masks, -1, 1, logits.dtype).mul_(logits)
        slope = F.softplus(wrong)
        q = wrong.sigmoid_()
        slope *= 1 - q
        slope *= ctx.gamma
        slope += q
        slope *= q.pow_(ctx.gamma)
        del wrong, q
        slope *= _choose(masks, -ctx.alpha, 1 - ctx.alpha, slope.dtype)  # a mask's z is -logit
        return slope.mul_(grad), None, None, None


def _choose(masks: torch.Tensor, inside: float, outside: float, dtype: torch.dtype) -> torch.Tensor:
    """One number inside masks, another outside."""
    return masks.to(dtype, copy=True).mul_(inside - outside).add_(outside)


def dice_loss(
    mask_logits: torch.Tensor, target_masks: torch.Tensor, num_targets: float
) -> torch.Tensor:
    """1 - (2·intersection + 1) / (sum of both areas + 1), summed over masks.

    Args:
        mask_logits: N×….
        target_masks: N×… bool.
        num_targets: the divisor.
    """
    probabilities = mask_logits.sigmoid()
    intersection = probabilities.where(target_masks, 0).flatten(1).sum(1)
    areas = probabilities.flatten(1).sum(1) + target_masks.flatten(1).sum(1)
    return (1 - (2 * intersection + 1) / (areas + 1)).sum() / num_targets

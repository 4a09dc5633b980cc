"""The assignment of queries to targets.

Axes: L decoder layers, B images, Q queries, K classes, T targets of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from torchvision.ops import box_convert, generalized_box_iou

from detr_d2.modeling.targets import Target

# Indices of queries, and those of their targets.
Pair: TypeAlias = tuple[torch.Tensor, torch.Tensor]


class HungarianMatcher(nn.Module):
    """Gives each target the query that makes the total cost smallest (paper, section 3.1)."""

    def __init__(self, *, cost_class: float, cost_l1: float, cost_giou: float) -> None:
        """Takes the weights of the class probability, the L1 distance and the GIoU."""
        super().__init__()
        self.cost_class = cost_class
        self.cost_l1 = cost_l1
        self.cost_giou = cost_giou

    @torch.no_grad()
    def forward(
        self, logits: torch.Tensor, boxes_cxcywh: torch.Tensor, targets: Sequence[Target]
    ) -> list[list[Pair]]:
        """Matches each image after each layer by itself.

        Args:
            logits: L×B×Q×(K+1).
            boxes_cxcywh: L×B×Q×4, relative, in [0, 1].
            targets: B targets.

        Returns:
            For each layer and image (query_index, target_index), int64 on the CPU, each of
            min(Q, T) items; queries in rising order.

        Raises:
            FloatingPointError: a cost is not finite.
        """
        num_layers, _, num_queries, _ = logits.shape
        costs = [  # L·Q×T of each image: no query is compared with targets of other images
            self.cost(logits[:, i].flatten(0, 1), boxes_cxcywh[:, i].flatten(0, 1), target)
            for i, target in enumerate(targets)
        ]
        # A GPU is waited for once, and not for every image and layer.
        on_host = torch.cat([cost.flatten() for cost in costs]).cpu()
        of_images = [
            part.view(num_layers, num_queries, len(target))
            for part, target in zip(on_host.split([c.numel() for c in costs]), targets, strict=True)
        ]
        return [[_assign(cost[layer]) for cost in of_images] for layer in range(num_layers)]

    def cost(
        self, logits: torch.Tensor, boxes_cxcywh: torch.Tensor, target: Target
    ) -> torch.Tensor:
        """The cost of each of N queries for each of T targets.

        Args:
            logits: N×(K+1).
            boxes_cxcywh: N×4.
            target: T targets.

        Returns:
            N×T float32.
        """
        probability = logits.float().softmax(-1)[:, target.classes]
        boxes = boxes_cxcywh.float()
        l1 = torch.cdist(boxes, target.boxes_cxcywh, p=1)
        giou = generalized_box_iou(
            box_convert(boxes, "cxcywh", "xyxy"),
            box_convert(target.boxes_cxcywh, "cxcywh", "xyxy"),
        )
        return self.cost_l1 * l1 - self.cost_class * probability - self.cost_giou * giou


def _assign(cost: torch.Tensor) -> Pair:
    if not cost.isfinite().all():
        raise FloatingPointError(
            "The model's classes or boxes are not finite, so that targets can't be matched. "
            "Lower SOLVER.BASE_LR, or look for damaged weights."
        )
    query_index, target_index = linear_sum_assignment(cost.numpy())
    return torch.from_numpy(query_index), torch.from_numpy(target_index)

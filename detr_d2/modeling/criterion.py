"""The criterion: matches queries to targets, gathers what the losses compare, and weights them.

Axes: B images, Q queries, K classes, L decoder layers, N matched (image, query) pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.utils import comm
from torch import nn

from detr_d2.modeling.losses import box_losses, class_loss, dice_loss, mask_focal_loss
from detr_d2.modeling.mask_points import compare_at_points
from detr_d2.modeling.matcher import HungarianMatcher, Pair
from detr_d2.modeling.targets import Target

MaskObserver = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """``MODEL.DETR.LOSS``: the weight of each loss and the shape of two of them.

    See ``add_detr_config`` for the meaning of each.
    """

    class_weight: float
    l1_weight: float
    giou_weight: float
    mask_weight: float
    dice_weight: float
    no_object_weight: float
    focal_alpha: float
    focal_gamma: float
    num_points: int


@dataclass(frozen=True)
class Matches:
    """Matched queries and targets of a whole batch, as flat indices.

    Attributes:
        image_index: N int64, the image of each pair.
        query_index: N int64, its query.
        target_index: N int64, its target within the image.
        counts: B numbers of pairs; pairs are ordered by image.
    """

    image_index: torch.Tensor
    query_index: torch.Tensor
    target_index: torch.Tensor
    counts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.image_index)

    @classmethod
    def of_layers(cls, pairs: Sequence[Sequence[Pair]], device: torch.device) -> list[Matches]:
        """Flattens what the matcher returns: for each layer a pair of indices for each image."""
        counts = [len(queries) for queries, _ in pairs[0]]  # the same after every layer
        image_index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        indices = [
            torch.stack([image_index, *(torch.cat(part) for part in zip(*of_layer, strict=True))])
            for of_layer in pairs
        ]
        flat = torch.stack(indices).to(device)  # L×3×N, in one transfer
        return [
            cls(images, queries, targets, tuple(counts))
            for images, queries, targets in flat.unbind()
        ]

    def targets_of_images(self) -> tuple[torch.Tensor, ...]:
        """``target_index`` of each image."""
        return self.target_index.split(self.counts)


@dataclass(frozen=True)
class Divisors:
    """The divisors of the sums over a batch, however it is divided among processes and parts.

    Both are averaged over processes, since gradients are. They follow from the numbers of targets
    alone, so that they are known before the first part of a batch goes through the model.

    Attributes:
        num_targets: of box and mask losses: the number of targets, at least 1 in all.
        class_weight: of the class loss: the sum of the weights of all queries' classes.
    """

    num_targets: float
    class_weight: float


class SetCriterion(nn.Module):
    """DETR's losses (paper, sections 3.1 and 4.2). Has no parameters; computes in float32.

    Attributes:
        mask_observer: None, or called with the masks that are compared: N×H×W logits, N×H×W bool
            targets and the N images they belong to. It changes none of them.
    """

    def __init__(self, matcher: HungarianMatcher, weights: LossWeights) -> None:
        super().__init__()
        self.matcher = matcher
        self.weights = weights
        self.mask_observer: MaskObserver | None = None

    def match(
        self, logits: torch.Tensor, boxes_cxcywh: torch.Tensor, targets: Sequence[Target]
    ) -> list[Matches]:
        """Matches L×B×Q×(K+1) logits and L×B×Q×4 boxes to B targets, after each of L layers."""
        return Matches.of_layers(self.matcher(logits, boxes_cxcywh, targets), logits.device)

    def divisors(
        self, targets: Sequence[Sized], num_queries: int, device: torch.device
    ) -> Divisors:
        """Counts what the losses of a whole batch are divided by; all processes have to call it.

        Args:
            targets: of this process's share of the batch, by image: anything that has a length.
            num_queries: Q.
            device: where processes talk to each other.
        """
        matched = sum(min(len(target), num_queries) for target in targets)
        unmatched = len(targets) * num_queries - matched
        weight = matched + self.weights.no_object_weight * unmatched
        num_targets, class_weight = _sum_over_processes([sum(map(len, targets)), weight], device)
        return Divisors(
            num_targets=max(num_targets, 1.0) / comm.get_world_size(),
            # 0 where no query counts: then the loss is 0
            class_weight=class_weight / comm.get_world_size() or 1.0,
        )

    def detection_losses(
        self,
        logits: torch.Tensor,
        boxes_cxcywh: torch.Tensor,
        targets: Sequence[Target],
        matches: Matches,
        num_targets: float,
        class_weight: float | None = None,
    ) -> dict[str, torch.Tensor]:
        """Weighted losses of classes and boxes after one decoder layer.

        Args:
            logits: B×Q×(K+1).
            boxes_cxcywh: B×Q×4, relative.
            targets: B targets.
            matches: N pairs.
            num_targets: what box losses are divided by.
            class_weight: what the class loss is divided by; None: the weights of these queries.

        Returns:
            ``loss_class``, ``loss_l1`` and ``loss_giou``.
        """
        pairs = (matches.image_index, matches.query_index)
        no_object = logits.shape[-1] - 1
        target_classes = matches.image_index.new_full(logits.shape[:2], no_object)  # B×Q
        target_classes[pairs] = _gather([t.classes for t in targets], matches)
        target_boxes = _gather([t.boxes_cxcywh for t in targets], matches)  # N×4

        l1, giou = box_losses(boxes_cxcywh[pairs].float(), target_boxes, num_targets)
        classification = class_loss(
            logits.float(), target_classes, self.weights.no_object_weight, class_weight
        )
        return {
            "loss_class": self.weights.class_weight * classification,
            "loss_l1": self.weights.l1_weight * l1,
            "loss_giou": self.weights.giou_weight * giou,
        }

    def mask_losses(
        self,
        mask_logits: torch.Tensor,
        targets: Sequence[Target],
        matches: Matches,
        num_targets: float,
        padded_size: tuple[int, int],
    ) -> dict[str, torch.Tensor]:
        """Weighted losses of the masks of matched queries.

        Args:
            mask_logits: N×H/4×W/4, in the order of ``matches``.
            targets: B targets with masks.
            matches: N pairs.
            num_targets: what the losses are divided by.
            padded_size: (H, W) of the padded batch. Masks are compared at all its pixels, or at
                points of it.

        Returns:
            ``loss_mask`` (focal) and ``loss_dice``.
        """
        target_masks = _padded_masks(targets, matches, padded_size)  # N×H×W
        mask_logits, num_points = mask_logits.float(), self.weights.num_points
        at_points = num_points > 0 and len(matches) > 0
        if not at_points:
            mask_logits = _upsampled(mask_logits, padded_size)  # N×H×W
        if self.mask_observer is not None:
            seen = mask_logits.detach()
            seen = _upsampled(seen, padded_size) if at_points else seen
            self.mask_observer(seen, target_masks, matches.image_index)
        if at_points:
            mask_logits, target_masks = compare_at_points(mask_logits, target_masks, num_points)
        focal = mask_focal_loss(
            mask_logits,
            target_masks,
            num_targets,
            self.weights.focal_alpha,
            self.weights.focal_gamma,
        )
        dice = dice_loss(mask_logits, target_masks, num_targets)
        return {
            "loss_mask": self.weights.mask_weight * focal,
            "loss_dice": self.weights.dice_weight * dice,
        }


def count_targets(targets: Sequence[Sized], device: torch.device) -> float:
    """The number of targets averaged over all processes, at least 1 in all: the losses' divisor."""
    (total,) = _sum_over_processes([sum(map(len, targets))], device)
    return max(total, 1.0) / comm.get_world_size()


def _sum_over_processes(values: Sequence[float], device: torch.device) -> list[float]:
    if comm.get_world_size() == 1:  # then no GPU need be asked
        return [float(value) for value in values]
    totals = torch.tensor(values, dtype=torch.float32, device=device)
    torch.distributed.all_reduce(totals)
    return totals.tolist()


@torch.no_grad()
def detection_metrics(
    logits: torch.Tensor, targets: Sequence[Target], matches: Matches
) -> dict[str, float]:
    """Computes figures that people watch beside the losses.

    Returns:
        ``class_error``: percentage of matched queries with a wrong class; ``cardinality_error``:
        mean absolute difference of the number of objects predicted and present.
    """
    predicted = logits.argmax(-1)  # B×Q
    target_classes = _gather([t.classes for t in targets], matches)
    correct = (predicted[matches.image_index, matches.query_index] == target_classes).float()
    num_predicted = (predicted != logits.shape[-1] - 1).sum(1)
    num_present = num_predicted.new_tensor([len(t) for t in targets])
    num_correct, cardinality_error = torch.stack(
        [correct.sum(), (num_predicted - num_present).abs().float().mean()]
    ).tolist()
    return {
        "class_error": 100 * (1 - num_correct / len(matches)) if len(matches) else 0.0,
        "cardinality_error": cardinality_error,
    }


def _gather(per_image: Sequence[torch.Tensor], matches: Matches) -> torch.Tensor:
    """Gathers the values of the matched targets: B tensors of T×… to N×…"""
    chosen = zip(per_image, matches.targets_of_images(), strict=True)
    return torch.cat([values[index] for values, index in chosen])


def _padded_masks(
    targets: Sequence[Target], matches: Matches, padded_size: tuple[int, int]
) -> torch.Tensor:
    """N×H×W bool: the masks of matched targets, each written once, to its place in the batch."""
    masks = matches.target_index.new_zeros(len(matches), *padded_size, dtype=torch.bool)
    of_images, chosen = masks.split(matches.counts), matches.targets_of_images()
    for target, of_image, index in zip(targets, of_images, chosen, strict=True):
        target.write_masks_to(of_image, index)
    return masks


def _upsampled(mask_logits: torch.Tensor, padded_size: tuple[int, int]) -> torch.Tensor:
    """N×h×w to N×H×W, bilinearly."""
    if not len(mask_logits):  # bilinear interpolation refuses an empty batch
        return mask_logits.sum() + mask_logits.new_zeros(0, *padded_size)
    return F.interpolate(mask_logits[:, None], size=padded_size, mode="bilinear")[:, 0]

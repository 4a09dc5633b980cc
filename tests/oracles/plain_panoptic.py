"""Predicts in the plain way: nothing is fused, shared, skipped or reordered.

It takes the parameters of our model, and follows the paper's figure 8. Benchmarks compare their
times with it, and tests their results. The convolutions, the masks and the merging share no code
with ``detr_d2.modeling``.

Axes: Q queries, n kept queries, K classes, D width, L decoder layers, M heads; h×w the res5 grid,
H×W the image.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d
from torch import nn

from detr_d2.modeling import DETR


@dataclass(frozen=True)
class PlainDetection:
    """The output of the plain detector for one image.

    Attributes:
        features: res2 … res5, each 1×C×·×·.
        projected: 1×D×h×w.
        memory: 1×D×h×w.
        hidden: L×Q×D, the output of every decoder layer.
        logits: Q×(K+1), after the last layer.
    """

    features: list[torch.Tensor]
    projected: torch.Tensor
    memory: torch.Tensor
    hidden: torch.Tensor
    logits: torch.Tensor


class PlainPanoptic:
    """A DETR with masks, for one image at a time. Its output is as large as the image."""

    def __init__(self, model: DETR) -> None:
        """Takes the parameters and current settings of a model in evaluation mode."""
        self.backbone = _made_plain(model.detector.backbone)
        self.mask_head = _made_plain(model.mask_head)
        self.detector_parts = {
            name: part for name, part in model.detector.named_children() if name != "backbone"
        }
        self.in_features = model.detector.in_features
        self.pixel_mean, self.pixel_std = model.pixel_mean, model.pixel_std
        self.is_thing = model.is_thing.tolist()
        self.options = model.options.panoptic

    @torch.no_grad()
    def __call__(self, image: torch.Tensor) -> tuple[torch.Tensor, list[dict]]:
        """Predicts as ``DETR`` does.

        Args:
            image: 3×H×W, 0 … 255.

        Returns:
            H×W int32 ids and ``segments_info``.
        """
        detection = self.detect(self.normalise(image))
        masks = self.masks_from(detection, self.attention_maps(detection))  # of all queries
        return self.choose_and_merge(detection.logits, masks, image.shape[-2:])

    def normalise(self, image: torch.Tensor) -> torch.Tensor:
        """Normalises 3×H×W, 0 … 255, to 1×3×H×W."""
        return ((image.to(self.pixel_mean.device).float() - self.pixel_mean) / self.pixel_std)[None]

    def detect(self, pixels: torch.Tensor) -> PlainDetection:
        """Runs backbone, transformer and class head on 1×3×H×W."""
        parts = self.detector_parts
        feature_maps = self.backbone(pixels)
        features = [feature_maps[name] for name in self.in_features]
        projected = parts["input_proj"](features[-1])
        no_padding = torch.zeros_like(projected[:, 0], dtype=torch.bool)
        positions = parts["position_encoding"](no_padding)
        transformed = parts["transformer"](projected, None, positions, parts["query_embed"].weight)
        memory, hidden = transformed.memory, transformed.hidden[:, 0]  # L×Q×D
        logits = parts["class_head"](hidden[-1])
        return PlainDetection(features, projected, memory, hidden, logits)

    def attention_maps(self, detection: PlainDetection) -> torch.Tensor:
        """Computes Q×M×h×w attention maps of each query and head."""
        attention = self.mask_head.attention_map
        heads = attention.num_heads
        q = attention.q_proj(detection.hidden[-1]).unflatten(1, (heads, -1))  # Q×M×D/M
        k = attention.k_proj(detection.memory[0].flatten(1).T).unflatten(1, (heads, -1))
        logits = torch.einsum("qmc,smc->qms", q, k) * q.shape[-1] ** -0.5  # Q×M×hw
        if attention.softmax_over == 2:  # joint
            weights = logits.flatten(1).softmax(-1).view_as(logits)
        else:
            weights = logits.softmax(-1)
        return weights.unflatten(2, detection.memory.shape[-2:])

    def masks_from(self, detection: PlainDetection, attention: torch.Tensor) -> torch.Tensor:
        """Computes n×H/4×W/4 mask logits of n×M×h×w attention maps."""
        head, n = self.mask_head, len(attention)
        x = torch.cat([detection.projected.repeat(n, 1, 1, 1), attention], dim=1)
        x = F.relu(head.input_norm(head.input_conv(x)))
        x = F.relu(head.norms[0](head.convs[0](x)))
        finer = detection.features[-2::-1]
        for lateral, feature, conv, norm in zip(
            head.laterals, finer, head.convs[1:], head.norms[1:], strict=True
        ):
            side = lateral(feature).repeat(n, 1, 1, 1)
            x = F.interpolate(x, size=side.shape[-2:], mode="nearest") + side
            x = F.relu(norm(conv(x)))
        return head.output_conv(x)[:, 0]

    def choose_and_merge(
        self, logits: torch.Tensor, mask_logits: torch.Tensor, size: Sequence[int]
    ) -> tuple[torch.Tensor, list[dict]]:
        """Keeps the queries above the threshold, and merges their masks.

        Args:
            logits: Q×(K+1).
            mask_logits: Q×H/4×W/4.
            size: (H, W).
        """
        scores, classes = logits.softmax(-1).max(-1)
        kept = (classes != logits.shape[-1] - 1) & (scores > self.options.score_thresh)
        return self.merge(mask_logits[kept], classes[kept].tolist(), scores[kept].tolist(), size)

    def merge(
        self,
        mask_logits: torch.Tensor,
        classes: Sequence[int],
        scores: Sequence[float],
        size: Sequence[int],
    ) -> tuple[torch.Tensor, list[dict]]:
        """Merges n kept masks by a pixel-wise argmax over an image of (H, W).

        Each round follows the released code: softmax over the remaining masks, argmax, duplicates
        of a stuff class join its first mask, small segments are dropped. Rounds end when none is
        dropped. The released code joins duplicates only in the first round, and then drops them for
        having no pixels. With ``stuff_merging`` "merged" they count with the first mask, and stay.
        """
        ids = torch.zeros(tuple(size), dtype=torch.int32, device=mask_logits.device)
        if not classes:
            return ids, []
        logits = F.interpolate(mask_logits[None], size=tuple(size), mode="bilinear")[0]  # n×H×W
        first = [classes.index(c) if not self.is_thing[c] else i for i, c in enumerate(classes)]
        alive, joined = list(range(len(classes))), True
        while alive:
            winner = logits[alive].softmax(0).argmax(0)  # H×W, places in alive
            stands_for = {i: first[i] if joined else i for i in alive}
            area = dict.fromkeys(alive, 0)
            owner = torch.empty_like(winner)
            for place, i in enumerate(alive):
                pixels = winner == place
                owner[pixels] = stands_for[i]
                area[stands_for[i]] += int(pixels.sum())
            joined = self.options.stuff_merging == "merged"
            counted = {i: area[stands_for[i] if joined else i] for i in alive}
            large = [i for i in alive if counted[i] > self.options.min_area]
            if large == alive:
                break
            alive = large

        segments_info = []
        for i in alive:
            if area[i] == 0:
                continue
            new_id = len(segments_info) + 1
            ids[owner == i] = new_id
            segments_info.append(
                {
                    "id": new_id,
                    "category_id": classes[i],
                    "isthing": self.is_thing[classes[i]],
                    "score": max(scores[j] for j in alive if stands_for[j] == i),
                    "area": area[i],
                }
            )
        return ids, segments_info


def _made_plain(module: nn.Module) -> nn.Module:
    """Copies a module with PyTorch's default memory format and Detectron2's own convolutions, whose
    norms are computed after them, not folded into them.
    """
    plain = copy.deepcopy(module).to(memory_format=torch.contiguous_format)
    for conv in plain.modules():
        if isinstance(conv, Conv2d):
            conv.__class__ = Conv2d
    return plain

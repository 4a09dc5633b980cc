"""A whole DETR as one graph of tensors: pixels in, the panoptic picture or raw predictions out.

Axes: B images, Q queries, K classes, k chosen queries, S segments; h×w the mask logits (stride 4),
H×W the network's input, H'×W' the output.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from detr_d2.export.merging_loop import (
    boxes_in_pixels,
    choose_queries,
    counts,
    fight_for_pixels,
    first_of_class,
    nearest_pixels,
)
from detr_d2.modeling import DETR
from detr_d2.modeling.exported_attention_head import ExportedMaskHead
from detr_d2.modeling.folded_conv import FoldedConv2d, has_fixed_statistics


@dataclass(frozen=True)
class Detected:
    """What the detector makes of a batch.

    Attributes:
        logits: B×Q×(K+1).
        boxes_cxcywh: B×Q×4, relative to the image.
        hidden: B×Q×D, the last decoder layer's output.
        mask_inputs: what the mask head sees of the images.
    """

    logits: torch.Tensor
    boxes_cxcywh: torch.Tensor
    hidden: torch.Tensor
    mask_inputs: tuple


class Network(nn.Module):
    """Detector and mask head on images of one size, which need no padding."""

    def __init__(self, model: DETR) -> None:
        """Takes a copy of a model with masks; see ``check_exportable``."""
        super().__init__()
        model = copy.deepcopy(model).eval().requires_grad_(False)
        fold_for_good(model)
        detector = model.detector
        self.detector = detector
        shapes = detector.backbone.output_shape()
        strides = [shapes[name].stride for name in reversed(detector.in_features)]
        self.mask_head = ExportedMaskHead(model.mask_head, strides)
        self.register_buffer("pixel_mean", model.pixel_mean)
        self.register_buffer("pixel_std", model.pixel_std)

    def detect(self, image: torch.Tensor) -> Detected:
        """Detects objects in B×3×H×W uint8."""
        detector = self.detector
        maps = detector.backbone((image.float() - self.pixel_mean) / self.pixel_std)
        *finer, coarsest = (maps[name] for name in detector.in_features)
        projected = detector.input_proj(coarsest)
        batch, _, height, width = projected.shape
        no_padding = torch.zeros(batch, height, width, dtype=torch.bool, device=image.device)
        positions = detector.position_encoding(no_padding)
        hidden, memory = detector.transformer(
            projected, None, detector.query_embed.weight, positions
        )
        hidden = hidden[-1]
        return Detected(
            detector.class_head(hidden),
            detector.box_head(hidden),
            hidden,
            (memory, projected, finer[::-1]),
        )


class RawGraph(nn.Module):
    """Images to what the network says of all queries, or of the best."""

    def __init__(self, model: DETR, top_k: int | None = None) -> None:
        super().__init__()
        self.network = Network(model)
        self.top_k = top_k or model.detector.query_embed.num_embeddings

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Predicts.

        Args:
            image: B×3×H×W uint8.

        Returns:
            logits: B×Q×(K+1).
            boxes_cxcywh: B×Q×4, relative to the image.
            mask_logits: B×k×h×w.
            query_index: B×k int64, which queries they are of, rising.
        """
        detected = self.network.detect(image)
        scores = detected.logits.softmax(-1)[..., :-1].amax(-1)  # B×Q
        query_index = scores.topk(self.top_k).indices.sort().values  # B×k
        chosen = query_index[..., None].expand(-1, -1, detected.hidden.shape[-1])
        mask_logits = self.network.mask_head(
            detected.hidden.gather(1, chosen), *detected.mask_inputs
        )
        return detected.logits, detected.boxes_cxcywh, mask_logits, query_index


class PanopticGraph(nn.Module):
    """One image to its panoptic picture."""

    def __init__(self, model: DETR, top_k: int | None = None) -> None:
        super().__init__()
        self.network = Network(model)
        self.top_k = top_k
        self.options = model.options
        self.register_buffer("is_thing", model.is_thing)

    def forward(
        self, image: torch.Tensor, output_size: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Predicts.

        Args:
            image: 1×3×H×W uint8.
            output_size: (H', W') int64; None: as the image.

        Returns:
            ids: H'×W' int32, 0 for void, or 1 … S.
            classes: S int64.
            scores: S float32, of each segment's best query.
            areas: S int64, in pixels of ids.
            boxes: S×4 float32, of the best query: (x0, y0, x1, y1) in pixels of ids.
        """
        options = self.options
        detected = self.network.detect(image)
        query_index, alive, classes, scores = choose_queries(
            detected.logits[0], options.score_thresh, self.top_k
        )
        mask_logits = self.network.mask_head(
            detected.hidden[:, query_index], *detected.mask_inputs
        )[0]

        height, width = image.shape[-2:]
        if output_size is None:
            output_size = torch.tensor([height, width])
            new_height, new_width = height, width
        else:
            new_height, new_width = (side.item() for side in output_size)
            torch._check(new_height >= 1)
            torch._check(new_width >= 1)
        rows = nearest_pixels(height, output_size[0], new_height)
        columns = nearest_pixels(width, output_size[1], new_width)
        segment_of = first_of_class(classes, self.is_thing[classes], alive)
        winner, areas, alive = fight_for_pixels(
            mask_logits,
            alive,
            segment_of,
            options.stuff_merging == "merged",
            options.min_area,
            counts(rows, height),
            counts(columns, width),
        )

        place = torch.arange(segment_of.shape[0])
        is_first = alive & (segment_of == place)
        id_of_query = (is_first.int().cumsum(0, dtype=torch.int32) * is_first)[segment_of]
        ids = id_of_query[winner][rows][:, columns]
        members = (segment_of == place[:, None]) & alive  # n×n, of each segment its queries
        best_scores, best = torch.where(members, scores, -1.0).max(1)
        first = is_first.nonzero()[:, 0]
        best = best[first]
        boxes = detected.boxes_cxcywh[0, query_index[best]]
        return (
            ids,
            classes[first],
            best_scores[first],
            areas[first],
            boxes_in_pixels(boxes, output_size.unbind()),
        )


def fold_for_good(module: nn.Module) -> None:
    """Gives convolutions the weights in which their batch norm is folded, in place."""
    for conv in module.modules():
        if isinstance(conv, FoldedConv2d) and has_fixed_statistics(conv.norm):
            weight, bias = conv.folded()
            conv.weight, conv.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
            conv.norm = None

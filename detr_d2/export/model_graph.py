"""A whole DETR as one graph of tensors: pixels in, the panoptic picture or raw predictions out.

Axes: B images, Q queries, K classes, k chosen queries, S segments; h×w the mask logits (stride 4),
H×W the network's input, H'×W' the output.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from detr_d2.export.merging_loop import (
    boxes_in_pixels,
    choose_queries,
    counts,
    nearest_pixels,
    resolve_overlaps,
)
from detr_d2.modeling import DETR
from detr_d2.modeling.detector import DetectorOutput
from detr_d2.modeling.folded_conv import FoldedConv2d, has_fixed_statistics
from detr_d2.modeling.mask_head_base import required_mask_head
from detr_d2.modeling.merging_rules import segment_ids


class Network(nn.Module):
    """Detector and mask head on images of one size, which need no padding."""

    # Buffers:
    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(self, model: DETR) -> None:
        """Copies a model with masks; see ``check_exportable``.

        Raises:
            ValueError: it has no masks.
        """
        super().__init__()
        model = copy.deepcopy(model).eval().requires_grad_(False)
        mask_head = required_mask_head(model.mask_head)
        fold_for_good(model)
        detector = model.detector
        self.detector = detector
        shapes = detector.backbone.output_shape()
        strides = [shapes[name].stride for name in reversed(detector.in_features)]
        self.mask_head = mask_head.exported(strides)
        self.register_buffer("pixel_mean", model.pixel_mean)
        self.register_buffer("pixel_std", model.pixel_std)

    def detect(self, image: torch.Tensor) -> DetectorOutput:
        """Detects objects in B×3×H×W uint8."""
        return self.detector.encode((image.float() - self.pixel_mean) / self.pixel_std, None)

    def masks(self, detected: DetectorOutput, queries: torch.Tensor) -> torch.Tensor:
        """Computes B×k×h×w mask logits of B×k×D decoded queries."""
        return self.mask_head(
            queries, detected.memory, detected.projected, detected.features[-2::-1]
        )


class RawGraph(nn.Module):
    """Computes the network's output on images, with masks of all queries or of the best."""

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
            query_index: B×k int64, the queries of the masks, ascending.
        """
        detected = self.network.detect(image)
        logits, boxes_cxcywh = detected.logits[-1], detected.boxes_cxcywh[-1]
        hidden = detected.hidden[-1]  # B×Q×D
        scores = logits.softmax(-1)[..., :-1].amax(-1)  # B×Q
        query_index = scores.topk(self.top_k).indices.sort().values  # B×k
        chosen = query_index[..., None].expand(-1, -1, hidden.shape[-1])
        mask_logits = self.network.masks(detected, hidden.gather(1, chosen))
        return logits, boxes_cxcywh, mask_logits, query_index


class PanopticGraph(nn.Module):
    """Computes the panoptic picture of one image."""

    is_thing: torch.Tensor  # a buffer

    def __init__(self, model: DETR, top_k: int | None = None) -> None:
        super().__init__()
        self.network = Network(model)
        self.top_k = top_k
        self.options = model.options.panoptic
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
        query_index, competing, classes, scores = choose_queries(
            detected.logits[-1, 0], options.score_thresh, self.top_k
        )
        mask_logits = self.network.masks(detected, detected.hidden[-1][:, query_index])[0]

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
        segment_of = options.rule.segments(classes, self.is_thing[classes], competing)
        winner, areas, survivors = resolve_overlaps(
            mask_logits,
            competing,
            segment_of,
            options,
            counts(rows, height),
            counts(columns, width),
        )

        id_of_query = segment_ids(areas, segment_of, survivors)
        ids = id_of_query[winner][rows][:, columns]
        place = torch.arange(segment_of.shape[0])
        members = (segment_of == place[:, None]) & survivors  # n×n, the queries of each segment
        best_scores, best = torch.where(members, scores, -1.0).max(1)
        first = ((id_of_query > 0) & (segment_of == place)).nonzero()[:, 0]
        best = best[first]
        boxes = detected.boxes_cxcywh[-1, 0, query_index[best]]
        return (
            ids,
            classes[first],
            best_scores[first],
            areas[first],
            boxes_in_pixels(boxes, output_size.unbind()),
        )


def fold_for_good(module: nn.Module) -> None:
    """Folds batch norms into the weights of their convolutions, in place."""
    for conv in module.modules():
        if isinstance(conv, FoldedConv2d) and has_fixed_statistics(conv.norm):
            weight, bias = conv.folded()
            conv.weight, conv.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
            conv.norm = None

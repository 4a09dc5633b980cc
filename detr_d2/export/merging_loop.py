"""Merges the raw predictions of one image to its panoptic picture, with tensors only.

This is the loop of ``detr_d2.modeling.merging`` for graphs. It follows the same rules
(``detr_d2.modeling.merging_rules``), without lists and without a transfer to the host.

Axes: Q queries, K classes, n chosen queries, S segments; h×w the mask logits (stride 4), H×W the
network's input, H'×W' the output.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from detr_d2.modeling.inference_options import PanopticOptions
from detr_d2.modeling.merging_rules import competing_queries, settle_round

# The logit of dropped masks: below all others, but safe to interpolate.
DROPPED = -1e30


def choose_queries(
    logits: torch.Tensor, score_thresh: float, top_k: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Chooses the queries whose masks are made.

    Args:
        logits: Q×(K+1).
        score_thresh: in [0, 1].
        top_k: number of queries with the best scores; None: all that compete for pixels, or the
            first query if none competes, since operators and runtimes fail on empty batches.

    Returns:
        n int64 indices, ascending; whether each competes, n bool; classes, n int64, never "no
        object"; scores, n float32.
    """
    scores, classes, kept = competing_queries(logits, score_thresh)
    if top_k is None:
        first = torch.arange(kept.shape[0], device=kept.device) == 0
        query_index = (kept | (first & ~kept.any())).nonzero()[:, 0]
        torch._check(query_index.shape[0] >= 1)
    else:
        query_index = (scores * kept).topk(top_k).indices.sort().values
    return query_index, kept[query_index], classes[query_index], scores[query_index]


def resolve_overlaps(
    mask_logits: torch.Tensor,
    competing: torch.Tensor,
    segment_of: torch.Tensor,
    options: PanopticOptions,
    rows: torch.Tensor,
    columns: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Assigns pixels to the masks with the highest logits, until a round drops no segment.

    The argmax is over pixels of the network's input. A pixel counts as often as the output uses it.

    Args:
        mask_logits: n×h×w.
        competing: n bool.
        segment_of: n int64, the first query of each query's segment.
        options: rule of merging and smallest area.
        rows: H int64, how often the output uses each row.
        columns: W int64, how often the output uses each column.

    Returns:
        winner: H×W int64, a query for each pixel; meaningless if no query competes.
        areas: n int64, see ``settle_round``.
        survivors: n bool, the queries that are not dropped.
    """
    weights = (rows[:, None] * columns).flatten()  # HW

    def wants_another_round(changed, winner, areas, competing):
        return changed.clone()

    def run_round(changed, winner, areas, competing):
        logits = torch.where(competing[:, None, None], mask_logits, DROPPED)
        size = winner.shape
        logits = F.interpolate(logits[None], size=tuple(size), mode="bilinear")[0]  # n×H×W
        winner = logits.argmax(0)
        pixels = torch.zeros_like(areas).scatter_add(0, winner.flatten(), weights)
        areas, survivors = settle_round(
            pixels, segment_of, competing, options.rule, options.min_area
        )
        return (survivors != competing).any(), winner, areas, survivors

    _, winner, areas, survivors = torch.while_loop(
        wants_another_round,
        run_round,
        (
            competing.any(),
            torch.zeros_like(weights).view(rows.shape[0], columns.shape[0]),
            torch.zeros_like(segment_of),
            competing.clone(),
        ),
    )
    return winner, areas, survivors


def nearest_pixels(old: int, new: torch.Tensor, length: int) -> torch.Tensor:
    """Computes ``detr_d2.modeling.upsampling.nearest_pixels`` in a graph.

    Args:
        old: number of input pixels.
        new: number of output pixels, an int64 scalar.
        length: ``new`` as an integer.

    Returns:
        ``new`` int64 indices.
    """
    step = torch.full_like(new, old, dtype=torch.float64) / new
    first = torch.arange(length, device=new.device) == 0
    return torch.where(first, step / 2, step).cumsum(0).long()


def counts(index: torch.Tensor, size: int) -> torch.Tensor:
    """Counts how often each of 0 … ``size`` - 1 is in an int64 index: ``size`` int64."""
    return torch.zeros(size, dtype=torch.int64, device=index.device).scatter_add(
        0, index, torch.ones_like(index)
    )


def boxes_in_pixels(boxes_cxcywh: torch.Tensor, size: Sequence[torch.Tensor]) -> torch.Tensor:
    """Converts S×4 relative boxes to (x0, y0, x1, y1) in pixels, clipped to the image."""
    centre, extent = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:]
    height, width = size
    scale = torch.stack([width, height]).to(boxes_cxcywh.dtype)
    corners = torch.stack([centre - extent / 2, centre + extent / 2], dim=1) * scale  # S×2×2
    return corners.clamp(min=0).minimum(scale).flatten(1)

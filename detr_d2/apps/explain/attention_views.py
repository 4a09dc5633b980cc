"""Attention as pictures for the page: which layers, heads and points fit into it.

Axes: M heads, T rows (grid points or queries), S grid points (h·w).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from detr_d2.apps.explain.grid_pictures import Tiles, palette_uri
from detr_d2.apps.explain.recorded_attention import RecordedAttention

# Largest number of the encoder's weights in a page; each is a byte before compression.
MAX_WEIGHTS = 11_000_000
MEAN = -1  # in place of a head's number: the mean over heads


def point_step(grid: Sequence[int], max_weights: int = MAX_WEIGHTS) -> int:
    """The smallest n with which one head's weights fit, if every n-th row and column is shown."""
    step = 1
    while len(grid_points(grid, step)) * math.prod(grid) > max_weights:
        step += 1
    return step


def grid_points(grid: Sequence[int], step: int) -> torch.Tensor:
    """Indices of the points in every ``step``-th row and column of an h×w grid, row by row."""
    height, width = grid
    return torch.arange(height * width).view(height, width)[::step, ::step].flatten()


def attention_views(
    attentions: Sequence[RecordedAttention],
    rows: torch.Tensor,
    columns: int,
    grid: Sequence[int],
    max_weights: int = MAX_WEIGHTS,
) -> list[dict]:
    """Makes pictures of attention, the most telling first, until the page has enough.

    The order is: the last layer's mean over heads, its heads, the means of the layers before it,
    and their heads.

    Args:
        attentions: of each layer.
        rows: int64 indices of the T rows to show.
        columns: number of maps that a picture has side by side.
        grid: h and w.
        max_weights: number of weights that all pictures may have together; the first picture is
            made in any case.

    Returns:
        A dict for each picture, sorted by layer and head: ``layer``, ``head`` (-1: the mean),
        ``uri``, ``columns`` and ``peaks`` (the highest weight of each row).
    """
    if not attentions:
        return []
    last = len(attentions) - 1
    before = range(last - 1, -1, -1)
    heads = [[(layer, head) for head in range(a.num_heads)] for layer, a in enumerate(attentions)]
    wanted = [(last, MEAN), *heads[last], *((layer, MEAN) for layer in before)]
    wanted += [view for layer in before for view in heads[layer]]
    fitting = max(1, max_weights // max(1, len(rows) * math.prod(grid)))
    views, shown = [], sorted(wanted[:fitting])
    for layer in sorted({layer for layer, _ in shown}):
        weights = attentions[layer].weights(rows.to(attentions[layer].q.device))  # M×T×S
        for head in (head for of_layer, head in shown if of_layer == layer):
            of_head = weights.mean(0) if head == MEAN else weights[head]
            tiles = Tiles.of(of_head.unflatten(1, tuple(grid)), columns)
            views.append({"layer": layer, "head": head, **tiles_view(tiles)})
    return views


def tiles_view(tiles: Tiles) -> dict:
    """Turns tiles into what the page's script reads."""
    return {
        "uri": palette_uri(tiles.picture, "heat"),
        "columns": tiles.columns,
        "peaks": [float(f"{peak:.4g}") for peak in tiles.peaks],
    }

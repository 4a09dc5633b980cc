"""Attention as pictures for the page: which layers and heads fit, and of which points.

Axes: M heads, T rows (grid points or queries), S grid points (h·w).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from detr_d2.apps.explain.grid_pictures import Tiles, palette_uri
from detr_d2.apps.explain.recorded_attention import RecordedAttention

# Weights that a page holds at most of the encoder; a byte each before compression.
MAX_WEIGHTS = 11_000_000
MEAN = -1  # in place of a head's number: the mean over heads


def point_step(grid: Sequence[int], max_weights: int = MAX_WEIGHTS) -> int:
    """Of how many rows and columns of an h×w grid one is taken, so that one head's weights fit."""
    step = 1
    while len(grid_points(grid, step)) * math.prod(grid) > max_weights:
        step += 1
    return step


def grid_points(grid: Sequence[int], step: int) -> torch.Tensor:
    """Indices, row by row, of every ``step``-th row and column of an h×w grid."""
    height, width = grid
    return torch.arange(height * width).view(height, width)[::step, ::step].flatten()


def attention_views(
    attentions: Sequence[RecordedAttention],
    rows: torch.Tensor,
    columns: int,
    grid: Sequence[int],
    max_weights: int = MAX_WEIGHTS,
) -> list[dict]:
    """Pictures of attention, the most telling first, until the page has enough.

    That is the last layer's mean over heads, its heads, the means of the layers before, their
    heads.

    Args:
        attentions: of each layer.
        rows: int64 indices of the T rows to show.
        columns: rows of weights that a picture has side by side.
        grid: h and w.
        max_weights: that all pictures have together; the first is made in any case.

    Returns:
        For each picture ``layer``, ``head`` (-1: the mean), ``uri``, ``columns`` and ``peaks`` (the
        highest weight of each row), sorted by layer and head.
    """
    if not attentions:
        return []
    last, heads = len(attentions) - 1, range(attentions[0].num_heads)
    before = range(last - 1, -1, -1)
    wanted = [(last, MEAN), *((last, head) for head in heads)]
    wanted += [(layer, MEAN) for layer in before]
    wanted += [(layer, head) for layer in before for head in heads]
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
    """Tiles as the page's script reads them."""
    return {
        "uri": palette_uri(tiles.picture, "heat"),
        "columns": tiles.columns,
        "peaks": [float(f"{peak:.4g}") for peak in tiles.peaks],
    }

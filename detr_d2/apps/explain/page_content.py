"""What the page shows of an explanation, as the templates and the page's script read it.

Axes: Q queries, n kept queries, M heads; h×w the res5 grid, H'×W' the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
import torch

from detr_d2.apps.explain.attention_views import (
    MAX_WEIGHTS,
    attention_views,
    grid_points,
    point_step,
    tiles_view,
)
from detr_d2.apps.explain.explained_pixels import ExplainedPixels
from detr_d2.apps.explain.explanation import Explanation, Masks
from detr_d2.apps.explain.grid_pictures import (
    LOGIT_RANGE,
    Tiles,
    at_most,
    palette_uri,
    query_color,
    query_colors,
    signed_levels,
    spread_channels,
    strip,
)
from detr_d2.apps.explain.left_out import left_out
from detr_d2.apps.explain.mask_head_stages import strongest_channels
from detr_d2.apps.explain.query_outcomes import (
    QueryOutcome,
    best_query,
    query_outcomes,
    surest_kept,
)
from detr_d2.apps.explain.recorded_attention import RecordedAttention
from detr_d2.apps.explain.tensor_origins import origins
from detr_d2.apps.html.render_html import jpeg_uri, png_uri
from detr_d2.visualization import draw_prediction, enlarge

# Number of channels of the backbone, and of positions, that are shown.
CHANNELS = 6
# Longest side of a picture in the page, in pixels; longer ones lose pixels.
LONGEST = 1066
# Queries whose way through the mask head is shown: the surest of the kept ones.
MAX_STAGE_QUERIES = 16


def page_context(explanation: Explanation) -> dict:
    """Makes everything that ``explain.html.j2`` asks for."""
    queries = query_outcomes(explanation)
    colors = {query.index: "#" + bytes(query_color(query.index)).hex() for query in queries}
    grid = tuple(explanation.padding_mask.shape)
    positions = explanation.positions
    step = point_step(grid) if explanation.encoder_attention else 1
    context: dict[str, Any] = {
        "title": "The seven moves of one image",
        "sizes": explanation.raw.sizes,
        "grid": grid,
        "origins": origins(explanation),
        "left_out": left_out(explanation),
        "options": explanation.options,
        "queries": queries,
        "colors": colors,
        "encoder_layers": len(explanation.encoder_attention),
        "encoder_heads": _num_heads(explanation.encoder_attention),
        "decoder_layers": len(explanation.decoder_attention),
        "decoder_heads": _num_heads(explanation.decoder_attention),
        "hidden_layers": len(explanation.hidden),
        "picture": jpeg_uri(at_most(explanation.picture, LONGEST), 90),
        "features": [
            {"name": name, **_channels(maps)} for name, maps in explanation.features.items()
        ],
        "positions": _channels(positions, spread_channels(positions, CHANNELS)),
        "projected": _channels(explanation.projected),
        "memory": _channels(explanation.memory),
        "data": {
            "grid": grid,
            "size": explanation.raw.sizes.padded,
            "first": best_query(queries),
            "queries": [
                asdict(query) | {"color": colors[query.index], "kind": query.kind}
                for query in queries
            ],
            "encoder": {
                "step": step,
                "possible": _possible_views(explanation.encoder_attention),
                "views": attention_views(
                    explanation.encoder_attention,
                    grid_points(grid, step),
                    -(-grid[1] // step),
                    grid,
                ),
            },
            "decoder": {
                "possible": _possible_views(explanation.decoder_attention),
                "views": attention_views(
                    explanation.decoder_attention,
                    torch.arange(len(queries)),
                    10,
                    grid,
                    MAX_WEIGHTS // 2,
                ),
            },
        },
        "with_masks": explanation.masks is not None,
    }
    masks = explanation.masks
    if masks is not None:
        maps = masks.attention_maps
        context["data"] |= {
            "maps": None if maps is None else _attention_maps(maps),
            "stages": _stages(masks, queries),
        }
        context |= {
            "embedded": _embedded(masks.embedded),
            "map_heads": 0 if maps is None else maps.shape[1],
            "softmax": "" if maps is None else softmax_of(maps),
            "logit_range": f"{LOGIT_RANGE:g}",
            "rounds": _rounds(masks, len(queries)),
            "margins": _margins(masks),
            "final": jpeg_uri(final_picture(explanation), 90),
            "segments": masks.segments_info,
            "class_names": explanation.class_names,
            "num_pixels": masks.ids.numel(),
        }
    return context


def softmax_of(maps: torch.Tensor) -> str:
    """Finds out over which axes the softmax of Q×M×h×w attention maps goes.

    Returns:
        "per_head" where each map sums to one, "joint" where the maps of each query sum to one
        together, else "".
    """
    sums = maps.flatten(2).sum(2)  # Q×M
    for name, ones in (("per_head", sums), ("joint", sums.sum(1))):
        if torch.allclose(ones, torch.ones_like(ones), atol=0.02):
            return name
    return ""


def _num_heads(attentions: Sequence[RecordedAttention]) -> int:
    """The largest number of heads that a layer has; 0 where there are no layers."""
    return max((attention.num_heads for attention in attentions), default=0)


def _possible_views(attentions: Sequence[RecordedAttention]) -> int:
    """The number of pictures of attention: of each layer the mean over heads, and its heads."""
    return sum(1 + attention.num_heads for attention in attentions)


def _channels(maps: torch.Tensor, channels: list[int] | None = None) -> dict:
    """Channels of C×h×w as one picture: those given, else those that vary most."""
    if channels is None:
        channels = strongest_channels(maps, CHANNELS).tolist()
    return {
        "uri": palette_uri(strip(maps[channels]), "viridis"),
        "channels": channels,
        "shape": tuple(maps.shape),
    }


def _attention_maps(maps: torch.Tensor) -> dict:
    """Q×M×h×w maps as a picture for each head, and the heads' shares of the weight, if any."""
    is_joint = softmax_of(maps) == "joint"
    shares = [[round(share, 4) for share in row] for row in maps.flatten(2).sum(2).tolist()]
    return {
        "views": [tiles_view(Tiles.of(maps[:, head], 10)) for head in range(maps.shape[1])],
        "shares": shares if is_joint else None,
    }


def _stages(masks: Masks, queries: list[QueryOutcome]) -> dict:
    """For each of the surest kept queries, the pictures of every stage, and its mask."""
    kept = masks.kept.tolist()
    return {
        query: {
            "stages": [
                {
                    "name": stage.name,
                    "size": stage.shape[1:],
                    "channels": stage.strongest[row].tolist(),
                    "uri": palette_uri(
                        strip(torch.cat([stage.mean[row, None], stage.maps[row]])), "viridis"
                    ),
                }
                for stage in masks.stages
            ],
            "similarity": _similarity(masks.embedded, row),
            "logits": palette_uri(signed_levels(masks.logits[row], LOGIT_RANGE), "RdBu_r"),
            "mask": png_uri(_mask(masks.logits[row], query_color(query))),
        }
        for query in surest_kept(queries, MAX_STAGE_QUERIES)
        for row in [kept.index(query)]
    }


def _embedded(embedded: ExplainedPixels | None) -> dict | None:
    """The embedding of the pixels as a picture, and the stages on the way to it; None without."""
    if embedded is None:
        return None
    return {
        "shape": tuple(embedded.pixels.shape),
        "colors": png_uri(pixel_colors(embedded)),
        "stages": [
            {
                "name": stage.name.removeprefix("mask_head."),
                "uri": palette_uri(strip(stage.maps[0]), "viridis"),
                "channels": stage.strongest[0].tolist(),
                "shape": stage.shape[1:],
            }
            for stage in embedded.stages
        ],
    }


def pixel_colors(embedded: ExplainedPixels) -> np.ndarray:
    """The colours of the embedding: H×W×3 uint8."""
    return (255 * embedded.colors()).round().byte().cpu().numpy()


def _similarity(embedded: ExplainedPixels | None, row: int) -> str | None:
    """Where a kept query's embedding is like the pixels'; None without embeddings."""
    if embedded is None:
        return None
    return palette_uri(signed_levels(embedded.similarity(row), limit=1.0), "RdBu_r")


def _mask(logits: torch.Tensor, color: tuple[int, int, int]) -> np.ndarray:
    """Paints where the logits of a mask are above 0, in a colour: H×W×4 uint8 RGBA."""
    inside = (logits > 0).cpu().numpy()
    colors = np.broadcast_to(np.array(color, np.uint8), (*inside.shape, 3))
    return np.dstack([colors, inside * np.uint8(170)])


def _rounds(masks: Masks, num_queries: int) -> list[dict]:
    colors = query_colors(num_queries)
    return [
        {
            "winner": png_uri(colors[at_most(_host(one.winner).astype(np.int32), LONGEST)]),
            "candidates": sorted(one.candidates, key=lambda candidate: -candidate.pixels),
        }
        for one in masks.rounds
    ]


def _margins(masks: Masks) -> dict | None:
    """How clearly the best mask wins each pixel; None where fewer than two masks compete."""
    if len(masks.kept) < 2:
        return None
    margins = _host(masks.margins)
    clear = float(np.percentile(margins, 90))
    levels = (255 * np.clip(margins / max(clear, 1e-12), 0, 1)).round().astype(np.uint8)
    return {
        "uri": palette_uri(at_most(levels, LONGEST), "cividis"),
        "far": clear,
        "median": float(np.median(margins)),
        "close": float((margins < 1).mean()),
    }


def final_picture(explanation: Explanation) -> np.ndarray:
    """Draws the panoptic picture as ``detr-d2 demo`` does, at most ``LONGEST`` long: RGB uint8."""
    masks = explanation.masks
    assert masks is not None  # without them, there is no such picture
    ids = at_most(_host(masks.ids), LONGEST)
    height, width = explanation.raw.sizes.network
    picture = enlarge(cv2.resize(explanation.picture[:height, :width], ids.shape[::-1]))
    prediction = {"panoptic_seg": (torch.from_numpy(ids), masks.segments_info)}
    return draw_prediction(picture, prediction, explanation.metadata)


def _host(values: torch.Tensor) -> np.ndarray:
    return values.cpu().numpy()

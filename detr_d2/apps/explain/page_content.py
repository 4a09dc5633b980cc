"""What the page shows of an explanation, as the templates and the page's script read it.

Axes: Q queries, n kept queries, M heads; h×w the res5 grid, H'×W' the output.
"""

from __future__ import annotations

from dataclasses import asdict

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
from detr_d2.apps.explain.explanation import Explanation
from detr_d2.apps.explain.grid_pictures import (
    LOGIT_RANGE,
    Tiles,
    at_most,
    channel_strip,
    logit_levels,
    palette_uri,
    query_color,
    query_colors,
    spread_channels,
    strip,
)
from detr_d2.apps.explain.query_outcomes import QueryFate, best_query, query_fates, surest_kept
from detr_d2.apps.explain.tensor_origins import origins
from detr_d2.apps.html.render_html import jpeg_uri, png_uri
from detr_d2.visualization import draw_prediction, enlarge

# Channels of the backbone, and of positions, that are shown.
CHANNELS = 6
# Longest side of a picture in the page, in pixels; longer ones lose pixels.
LONGEST = 1066
# Queries whose way through the mask head is shown, the surest of the kept ones.
MAX_STAGE_QUERIES = 16


def page_context(explanation: Explanation) -> dict:
    """Everything that ``explain.html.j2`` asks for."""
    fates = query_fates(explanation)
    colors = {fate.index: "#" + bytes(query_color(fate.index)).hex() for fate in fates}
    grid = tuple(explanation.padding_mask.shape)
    step = point_step(grid) if explanation.encoder_attention else 1
    context = {
        "title": "The seven moves of one image",
        "sizes": explanation.raw.sizes,
        "grid": grid,
        "origins": origins(explanation),
        "options": explanation.options,
        "fates": fates,
        "colors": colors,
        "num_heads": explanation.decoder_attention[0].num_heads,
        "dec_layers": len(explanation.decoder_attention),
        "enc_layers": len(explanation.encoder_attention),
        "picture": jpeg_uri(at_most(explanation.picture, LONGEST), 90),
        "features": _features(explanation),
        "positions": _positions(explanation),
        "projected": _channels(explanation.projected),
        "memory": _channels(explanation.memory),
        "data": {
            "grid": grid,
            "size": explanation.raw.sizes.padded,
            "first": best_query(fates),
            "queries": [_query(fate, colors[fate.index]) for fate in fates],
            "encoder": {
                "step": step,
                "views": attention_views(
                    explanation.encoder_attention,
                    grid_points(grid, step),
                    -(-grid[1] // step),
                    grid,
                ),
            },
            "decoder": {
                "views": attention_views(
                    explanation.decoder_attention,
                    torch.arange(len(fates)),
                    10,
                    grid,
                    MAX_WEIGHTS // 2,
                )
            },
        },
        "with_masks": explanation.masks is not None,
    }
    if explanation.masks is not None:
        context["data"] |= {
            "maps": _attention_maps(explanation),
            "stages": _stages(explanation, fates),
        }
        context |= {
            "joint": _is_joint(explanation),
            "logit_range": f"{LOGIT_RANGE:g}",
            "rounds": _rounds(explanation),
            "margins": _margins(explanation),
            "final": jpeg_uri(final_picture(explanation), 90),
            "segments": explanation.masks.segments_info,
            "class_names": explanation.class_names,
            "num_pixels": explanation.masks.ids.numel(),
        }
    return context


def _query(fate: QueryFate, color: str) -> dict:
    return asdict(fate) | {"color": color, "kind": fate.kind}


def _channels(maps: torch.Tensor) -> dict:
    """The strongest of C×h×w channels."""
    levels, channels = channel_strip(maps, CHANNELS)
    return {
        "uri": palette_uri(levels, "viridis"),
        "channels": channels,
        "shape": tuple(maps.shape),
    }


def _features(explanation: Explanation) -> list[dict]:
    return [{"name": name, **_channels(feature)} for name, feature in explanation.features.items()]


def _positions(explanation: Explanation) -> dict:
    """Some of the D features, from all of their range."""
    channels = spread_channels(explanation.positions, CHANNELS)
    levels = strip(explanation.positions[channels])
    return {
        "uri": palette_uri(levels, "viridis"),
        "channels": channels,
        "shape": tuple(explanation.positions.shape),
    }


def _is_joint(explanation: Explanation) -> bool:
    """Whether a query's weights sum to one over all heads, and not over the points of each."""
    return explanation.model.mask_head.attention_map.softmax_over == 2


def _attention_maps(explanation: Explanation) -> dict:
    """The M maps of all queries: a picture for each head."""
    maps = explanation.masks.attention_maps  # Q×M×h×w
    total = maps.flatten(1).sum(1)  # M where each head sums to one, else 1
    shares = maps.flatten(2).sum(2) / total[:, None]
    return {
        "views": [tiles_view(Tiles.of(maps[:, head], 10)) for head in range(maps.shape[1])],
        "joint": _is_joint(explanation),
        "shares": [[round(share, 4) for share in row] for row in shares.tolist()],
    }


def _stages(explanation: Explanation, fates: list[QueryFate]) -> dict:
    """For each of the surest kept queries its pictures of every stage, and its mask."""
    masks = explanation.masks
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
            "logits": palette_uri(logit_levels(masks.logits[row]), "RdBu_r"),
            "mask": png_uri(_mask(masks.logits[row], query_color(query))),
        }
        for query in surest_kept(fates, MAX_STAGE_QUERIES)
        for row in [kept.index(query)]
    }


def _mask(logits: torch.Tensor, color: tuple[int, int, int]) -> np.ndarray:
    """Where the logits of a mask are above 0, in a colour: H×W×4 uint8 RGBA."""
    inside = (logits > 0).cpu().numpy()
    return np.dstack([np.broadcast_to(np.uint8(color), (*inside.shape, 3)), inside * np.uint8(170)])


def _rounds(explanation: Explanation) -> list[dict]:
    colors = query_colors(len(explanation.raw.logits))
    return [
        {
            "winner": png_uri(colors[at_most(_host(fight.winner).astype(np.int32), LONGEST)]),
            "fighters": sorted(fight.fighters, key=lambda fighter: -fighter.pixels),
        }
        for fight in explanation.masks.rounds
    ]


def _margins(explanation: Explanation) -> dict | None:
    """How clear the fight was; None where fewer than two fought."""
    if len(explanation.masks.kept) < 2:
        return None
    margins = _host(explanation.masks.margins)
    clear = float(np.percentile(margins, 90))
    levels = (255 * np.clip(margins / max(clear, 1e-12), 0, 1)).round().astype(np.uint8)
    return {
        "uri": palette_uri(at_most(levels, LONGEST), "cividis"),
        "far": clear,
        "median": float(np.median(margins)),
        "close": float((margins < 1).mean()),
    }


def final_picture(explanation: Explanation) -> np.ndarray:
    """The panoptic picture as ``detr-d2 demo`` draws it, at most ``LONGEST`` long: RGB uint8."""
    ids = at_most(_host(explanation.masks.ids), LONGEST)
    height, width = explanation.raw.sizes.network
    picture = enlarge(cv2.resize(explanation.picture[:height, :width], ids.shape[::-1]))
    prediction = {"panoptic_seg": (torch.from_numpy(ids), explanation.masks.segments_info)}
    return draw_prediction(picture, prediction, explanation.metadata)


def _host(values: torch.Tensor) -> np.ndarray:
    return values.cpu().numpy()

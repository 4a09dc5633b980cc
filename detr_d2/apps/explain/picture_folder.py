"""The page's pictures as files of their own, large enough to be looked at.

Axes: H×W the image.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from detectron2.utils.visualizer import Visualizer

from detr_d2.apps.explain.explanation import Explanation
from detr_d2.apps.explain.grid_pictures import (
    LOGIT_RANGE,
    Tiles,
    colored,
    heated,
    query_color,
    query_colors,
    signed_levels,
    spread_channels,
    strip,
)
from detr_d2.apps.explain.mask_head_stages import Stage, strongest_channels
from detr_d2.apps.explain.page_content import (
    CHANNELS,
    MAX_STAGE_QUERIES,
    final_picture,
    pixel_colors,
)
from detr_d2.apps.explain.query_outcomes import query_outcomes, surest_kept
from detr_d2.visualization import below, beside, enlarge

# Width of a map in a row of maps, in pixels.
MAP_WIDTH = 240
# Longest side of an image that lies under a map, in pixels.
SMALL = 320


def pictures(explanation: Explanation) -> Iterator[tuple[str, np.ndarray]]:
    """Makes the pictures in the order of the moves: names, without a suffix, and H×W×3 uint8 RGB.

    At most ``MAX_STAGE_QUERIES`` queries have pictures, the surest of the kept ones.
    """
    image = enlarge(explanation.picture)
    small = _shrink(image)
    yield "move1_image", image
    for name, maps in explanation.features.items():
        yield f"move1_{name}", _row(maps[strongest_channels(maps, CHANNELS)])
    positions = explanation.positions
    yield "move1_positions", _row(positions[spread_channels(positions, CHANNELS)])
    for name in ("projected", "memory"):
        maps = getattr(explanation, name)
        yield f"move2_{name}", _row(maps[strongest_channels(maps, CHANNELS)])
    if explanation.encoder_attention:
        yield "move2_attention_of_the_middle", _encoder_attention(explanation, small)
    yield "move3_boxes", _boxes(explanation, image)
    if explanation.masks is None:
        return
    masks, queries = explanation.masks, query_outcomes(explanation)
    kept = masks.kept.tolist()
    if masks.embedded is not None:
        yield "move4_pixel_embedding", _enlarge_cells(pixel_colors(masks.embedded))
        yield "move4_stages", _stages(masks.embedded.stages, 0)
    for query in surest_kept(queries, MAX_STAGE_QUERIES):
        row, of_query = kept.index(query), f"query{query:03d}"
        if explanation.decoder_attention:
            attention = explanation.decoder_attention[-1].weights()[:, query].mean(0)
            yield f"move3_{of_query}_attention", heated(small, _levels(attention, explanation))
        if masks.attention_maps is not None:
            heads = [_levels(m.flatten(), explanation) for m in masks.attention_maps[query]]
            yield f"move4_{of_query}_maps", beside([heated(small, levels) for levels in heads])
        if masks.stages:
            yield f"move5_{of_query}_stages", _stages(masks.stages, row)
        if masks.embedded is not None:
            cosines = signed_levels(masks.embedded.similarity(row), limit=1.0)
            yield f"move5_{of_query}_similarity", _enlarge_cells(colored(cosines, "RdBu_r"))
        logits = signed_levels(masks.logits[row], LOGIT_RANGE)
        yield f"move5_{of_query}_mask_logits", _enlarge_cells(colored(logits, "RdBu_r"))
    colors = query_colors(len(explanation.raw.logits))
    for number, one in enumerate(masks.rounds, start=1):
        yield f"move7_round{number}", _enlarge_cells(colors[one.winner.cpu().numpy()])
    yield "move7_final", final_picture(explanation)


def _shrink(image: np.ndarray) -> np.ndarray:
    """Makes an image that lies under maps at most ``SMALL`` long, because there are many."""
    factor = SMALL / max(image.shape[:2])
    if factor >= 1:
        return image
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def _enlarge_cells(picture: np.ndarray) -> np.ndarray:
    """Enlarges a small H×W×3 picture so that its pixels become squares."""
    factor = max(1, round(SMALL / max(picture.shape[:2])))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def _row(maps: torch.Tensor) -> np.ndarray:
    """Puts n×h×w maps side by side, each enlarged to about ``MAP_WIDTH``, with gaps between."""
    large = colored(strip(maps), "viridis")
    factor = max(1, round(MAP_WIDTH / maps.shape[2]))
    large = large.repeat(factor, axis=0).repeat(factor, axis=1)
    return beside(np.split(large, len(maps), axis=1))


def _levels(weights: torch.Tensor, explanation: Explanation) -> np.ndarray:
    """Turns S weights into h×w levels, of which the highest is 255."""
    return Tiles.of(weights.view(1, *explanation.padding_mask.shape), 1).picture


def _encoder_attention(explanation: Explanation, image: np.ndarray) -> np.ndarray:
    """Shows what the middle of the image attends to in the last layer, as the mean over heads."""
    height, width = explanation.padding_mask.shape
    middle = torch.tensor([height // 2 * width + width // 2])
    attention = explanation.encoder_attention[-1]
    weights = attention.weights(middle.to(attention.q.device))[:, 0].mean(0)
    picture = heated(image, _levels(weights, explanation))
    x, y = ((width // 2 + 0.5) / width, (height // 2 + 0.5) / height)
    centre = round(x * image.shape[1]), round(y * image.shape[0])
    return cv2.circle(picture, centre, 6, (255, 255, 255), 2, cv2.LINE_AA)


def _boxes(explanation: Explanation, image: np.ndarray) -> np.ndarray:
    """Draws the boxes of the kept queries.

    For a model without masks these are the queries that are likelier an object than nothing.
    """
    network, padded = explanation.raw.sizes.network, explanation.raw.sizes.padded
    height, width = (image.shape[i] * network[i] / padded[i] for i in (0, 1))
    shown = [
        query
        for query in query_outcomes(explanation)
        if (query.kept if explanation.masks is not None else query.score > query.no_object)
    ]
    visualizer = Visualizer(image, explanation.metadata)
    return visualizer.overlay_instances(
        boxes=np.reshape([query.box_xyxy for query in shown], (-1, 4)) * ([width, height] * 2),
        labels=[f"{query.index} {query.name} {query.score:.0%}" for query in shown],
        assigned_colors=[np.array(query_color(query.index)) / 255 for query in shown],
    ).get_image()


def _stages(stages: list[Stage], row: int) -> np.ndarray:
    """Puts the rows of stages one below the other: the mean over channels, then some channels."""
    return below([_row(torch.cat([s.mean[row, None], s.maps[row]])) for s in stages])

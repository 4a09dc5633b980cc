"""Why a segment is there: its queries, their classes and boxes, and their attention.

Axes: Q queries, K classes, M heads; H×W the image, h×w the res5 grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torchvision.ops import box_convert

from detr_d2.apps.explain.grid_pictures import Tiles, at_most, heated
from detr_d2.apps.web.image_viewer import Shown
from detr_d2.modeling.upsampling import ImageSizes, UpsampledMasks
from detr_d2.visualization import enlarge

# Number of classes that are listed for each query.
TOP_CLASSES = 5
# Longest side of a picture, in pixels.
LONGEST = 480
# Largest number of queries that are shown for a segment. Stuff may be made of all queries.
MAX_QUERIES = 4
_BOX_COLOR = (64, 224, 255)


@dataclass(frozen=True)
class QueryReason:
    """What one query predicted.

    Attributes:
        index: of the query.
        top: names and probabilities of its likeliest classes, including "no object", the likeliest
            first.
        box_xyxy: corners in pixels of the image.
        mask: RGB uint8: the image, the probability of each pixel over it, and the box.
        attention: M pictures, RGB uint8, each relative to the peak of its own map.
        shares: the share of each of the M heads in the attention. The shares sum to one. None where
            each head has a softmax of its own.
    """

    index: int
    top: list[tuple[str, float]]
    box_xyxy: tuple[float, float, float, float]
    mask: np.ndarray
    attention: list[np.ndarray]
    shares: list[float] | None


def reasons(shown: Shown, segment: dict) -> list[QueryReason]:
    """Explains at most ``MAX_QUERIES`` queries of a segment, the most certain first.

    Args:
        shown: the image that has the segment.
        segment: one of its ``segments_info``.
    """
    scores = shown.raw.logits.softmax(-1)[:, segment["category_id"]]
    queries = sorted(segment["queries"], key=lambda query: -scores[query].item())
    picture = at_most(enlarge(shown.image), LONGEST)
    return [_reason(shown, query, picture) for query in queries[:MAX_QUERIES]]


def surest_query(shown: Shown) -> tuple[str, float]:
    """Returns the likeliest class of all queries, except "no object", and its probability."""
    probabilities = shown.raw.logits.softmax(-1)[:, :-1]
    best = int(probabilities.argmax())
    name = shown.metadata.stuff_classes[best % probabilities.shape[1]]
    return name, float(probabilities.flatten()[best])


def _reason(shown: Shown, query: int, picture: np.ndarray) -> QueryReason:
    raw = shown.raw
    probabilities = raw.logits[query].softmax(-1)
    top = probabilities.topk(min(TOP_CLASSES, len(probabilities)))
    names = [*shown.metadata.stuff_classes, "no object"]
    box = box_convert(raw.boxes_cxcywh[query], "cxcywh", "xyxy").clamp(0, 1).cpu()
    maps = torch.empty(0) if shown.attention_maps is None else shown.attention_maps[query]
    height, width = shown.image.shape[:2]
    return QueryReason(
        index=query,
        top=[(names[k], p) for k, p in zip(top.indices.tolist(), top.values.tolist(), strict=True)],
        box_xyxy=tuple((box * torch.tensor([width, height, width, height])).tolist()),
        mask=_with_box(heated(picture, _mask_levels(shown, query)), box),
        attention=[heated(picture, levels) for levels in attention_levels(maps, raw.sizes)],
        shares=_shares(maps),
    )


def _shares(maps: torch.Tensor) -> list[float] | None:
    """Returns the share of each head in M×h×w maps, see ``QueryReason``."""
    # All maps together sum to one, or each of them does.
    return maps.sum((1, 2)).tolist() if len(maps) and maps.sum() < 1.5 else None


def _mask_levels(shown: Shown, query: int) -> np.ndarray:
    """Returns the probability of a query's mask, H×W uint8."""
    raw = shown.raw
    mask_logits = raw.masks(torch.tensor([query], device=raw.logits.device))
    probability = mask_logits.new_zeros(raw.sizes.output)
    rows = torch.arange(raw.sizes.output[0], device=mask_logits.device)
    for some, logits in UpsampledMasks(mask_logits, raw.sizes).strips(rows):
        probability[some] = logits[0].float().sigmoid()
    return (probability * 255).round().byte().cpu().numpy()


def attention_levels(maps: torch.Tensor, sizes: ImageSizes) -> list[np.ndarray]:
    """Returns M maps of h×w cells as levels of a heat map, without the padding of the image."""
    if not len(maps):
        return []
    tiles = Tiles.of(maps, 1).picture.reshape(maps.shape)
    (padded_height, padded_width), (height, width) = sizes.padded, sizes.network
    size = padded_width, padded_height
    return [
        cv2.resize(tile, size, interpolation=cv2.INTER_NEAREST)[:height, :width] for tile in tiles
    ]


def _with_box(picture: np.ndarray, box: torch.Tensor) -> np.ndarray:
    """Draws a box, relative to the image in [0, 1], into a picture."""
    height, width = picture.shape[:2]
    edges = zip(box.tolist(), (width, height, width, height), strict=True)
    left, upper, right, lower = (round(edge * (length - 1)) for edge, length in edges)
    return cv2.rectangle(picture, (left, upper), (right, lower), _BOX_COLOR, 2)

"""From raw predictions of one image to instances and the panoptic picture: pure functions.

Axes: Q queries, K classes, n kept queries; h×w the mask logits (stride 4), H×W the network's input
without padding, H'×W' the output.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances
from torchvision.ops import box_convert

# Masks upsampled at a time: bounds memory at 16·H·W floats.
MASKS_PER_CHUNK = 16


@dataclass(frozen=True)
class InferenceOptions:
    """``MODEL.DETR.TEST``; see ``add_detr_config`` for the meaning of each."""

    score_thresh: float = 0.85
    stuff_merging: str = "reference"
    min_area: int = 4
    panoptic_on: bool = True
    instances_on: bool = True
    instance_score_thresh: float = 0.0
    batch_invariant: bool = False


@dataclass(frozen=True)
class ImageSizes:
    """The sizes (height, width) that one image goes through.

    Attributes:
        padded: the batch as the network sees it.
        network: the image within it.
        output: what was asked for.
    """

    padded: tuple[int, int]
    network: tuple[int, int]
    output: tuple[int, int]


@dataclass(frozen=True)
class QuerySelection:
    """Some queries of one image, with the class that each stands for.

    Attributes:
        query_index: n int64.
        classes: n int64, never "no object".
        scores: n float32, the probability of the class.
    """

    query_index: torch.Tensor
    classes: torch.Tensor
    scores: torch.Tensor

    def __len__(self) -> int:
        return len(self.query_index)


def select_panoptic_queries(logits: torch.Tensor, score_thresh: float) -> QuerySelection:
    """The queries that compete for pixels: their best class is an object, above the threshold.

    Args:
        logits: Q×(K+1).
        score_thresh: in [0, 1].
    """
    scores, classes = logits.float().softmax(-1).max(-1)
    kept = (classes != logits.shape[-1] - 1) & (scores > score_thresh)
    return _select(kept, classes, scores)


def select_instance_queries(
    logits: torch.Tensor, is_thing: torch.Tensor, score_thresh: float
) -> QuerySelection:
    """The queries whose best class, "no object" aside, is a thing with a score above a threshold.

    Args:
        logits: Q×(K+1).
        is_thing: K bool.
        score_thresh: in [0, 1].
    """
    scores, classes = logits.float().softmax(-1)[:, :-1].max(-1)
    return _select(is_thing[classes] & (scores > score_thresh), classes, scores)


def _select(kept: torch.Tensor, classes: torch.Tensor, scores: torch.Tensor) -> QuerySelection:
    query_index = kept.nonzero()[:, 0]
    return QuerySelection(query_index, classes[query_index], scores[query_index])


def make_instances(
    selection: QuerySelection,
    boxes_cxcywh: torch.Tensor,
    mask_logits: torch.Tensor | None,
    sizes: ImageSizes,
) -> Instances:
    """Makes Detectron2's ``Instances`` at the output size.

    Args:
        selection: n queries.
        boxes_cxcywh: n×4, relative to the image.
        mask_logits: n×h×w, or None for a model without masks.
        sizes: the sizes of the image.

    Returns:
        ``pred_boxes``, ``scores``, ``pred_classes`` and, with masks, ``pred_masks`` (n×H'×W' bool).
    """
    height, width = sizes.output
    instances = Instances(sizes.output)
    boxes = box_convert(boxes_cxcywh.float(), "cxcywh", "xyxy")
    instances.pred_boxes = Boxes(boxes * boxes.new_tensor([width, height, width, height]))
    instances.pred_boxes.clip(sizes.output)
    instances.scores = selection.scores
    instances.pred_classes = selection.classes
    if mask_logits is not None:
        instances.pred_masks = _binary_masks(mask_logits, sizes)
    return instances


def _binary_masks(mask_logits: torch.Tensor, sizes: ImageSizes) -> torch.Tensor:
    """n×h×w logits to n×H'×W' bool: where the upsampled probability is above one half."""
    masks = mask_logits.new_zeros((len(mask_logits), *sizes.output), dtype=torch.bool)
    for start in range(0, len(mask_logits), MASKS_PER_CHUNK):
        chunk = slice(start, start + MASKS_PER_CHUNK)
        positive = upsample_to_network_size(mask_logits[chunk], sizes) > 0
        masks[chunk] = resize_nearest(positive, sizes.output)
    return masks


def merge_panoptic(
    selection: QuerySelection,
    mask_logits: torch.Tensor,
    is_thing: torch.Tensor,
    sizes: ImageSizes,
    *,
    stuff_merging: str,
    min_area: int,
) -> tuple[torch.Tensor, list[dict]]:
    """Lets the kept queries fight for pixels: a pixel goes to the mask with the highest logit.

    All queries of one stuff class share a segment. Segments of at most ``min_area`` pixels are
    dropped and the rest fights again, until none is dropped. With ``stuff_merging="reference"``
    only the first of several queries of a stuff class survives the first round, as in the released
    code, where the others' pixels have gone to the first and they are dropped as small; in the
    second round those pixels go to whichever mask comes next. With "merged" they stay one segment.

    Args:
        selection: n queries.
        mask_logits: n×h×w.
        is_thing: K bool.
        sizes: the sizes of the image.
        stuff_merging: "reference" or "merged".
        min_area: in pixels of the output.

    Returns:
        ids: H'×W' int32 on the device of the logits; 0 where nothing was kept.
        segments_info: a dict for each id from 1 on, with ``id``, ``category_id`` (contiguous),
            ``isthing``, ``score`` (of the best query) and ``area`` (pixels), as Python numbers.
    """
    logits = upsample_to_network_size(mask_logits, sizes)  # n×H×W
    alive = torch.ones_like(selection.classes, dtype=torch.bool)
    segment_of = first_of_class(selection.classes, is_thing)  # n
    while alive.any():
        # Logits order the masks as a softmax over them would.
        winner = logits.masked_fill(~alive[:, None, None], -torch.inf).argmax(0)
        segment = resize_nearest(segment_of[winner], sizes.output)  # H'×W'
        areas = segment.flatten().bincount(minlength=len(selection))  # n
        if stuff_merging == "reference":
            survives = areas > min_area
            segment_of = torch.arange(len(selection), device=segment_of.device)
        else:
            survives = areas[segment_of] > min_area
        if not (alive & ~survives).any():
            return _number_segments(selection, segment, segment_of, areas, is_thing)
        alive &= survives
    return torch.zeros(sizes.output, dtype=torch.int32, device=mask_logits.device), []


def first_of_class(classes: torch.Tensor, is_thing: torch.Tensor) -> torch.Tensor:
    """For each of n queries the first of its stuff class; for things the query itself."""
    index = torch.arange(len(classes), device=classes.device)
    same = (classes[:, None] == classes) & ~is_thing[classes]  # n×n
    same.fill_diagonal_(True)
    return torch.where(same, index, len(classes)).amin(1) if len(classes) else index


def _number_segments(
    selection: QuerySelection,
    segment: torch.Tensor,
    segment_of: torch.Tensor,
    areas: torch.Tensor,
    is_thing: torch.Tensor,
) -> tuple[torch.Tensor, list[dict]]:
    """Numbers the segments with pixels from 1, in the order of queries, and describes them."""
    present = areas > 0
    new_id = (present.cumsum(0) * present).int()
    best_score = torch.zeros_like(selection.scores).scatter_reduce(
        0, segment_of, selection.scores, "amax"
    )
    segments_info = [
        {"id": id, "category_id": category, "isthing": thing, "score": score, "area": area}
        for id, category, thing, score, area in zip(
            new_id[present].tolist(),
            selection.classes[present].tolist(),
            is_thing[selection.classes][present].tolist(),
            best_score[present].tolist(),
            areas[present].tolist(),
            strict=True,
        )
    ]
    return new_id[segment], segments_info


def upsample_to_network_size(mask_logits: torch.Tensor, sizes: ImageSizes) -> torch.Tensor:
    """n×h×w logits of the padded batch to n×H×W logits of the image in it, bilinearly."""
    height, width = sizes.network
    if not len(mask_logits):  # bilinear interpolation refuses an empty batch
        return mask_logits.new_zeros((0, height, width))
    upsampled = F.interpolate(mask_logits[:, None].float(), size=sizes.padded, mode="bilinear")
    return upsampled[:, 0, :height, :width]


def resize_nearest(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """…×H×W to …×H'×W', of any type, each output pixel taking the input pixel under its centre.

    Bit for bit what Pillow's nearest resize gives, by which the reference resizes segment ids:
    Pillow adds up steps, whose rounding decides where a centre falls between two pixels.
    """
    for axis, new in zip((-2, -1), size, strict=True):
        old = values.shape[axis]
        if new != old:
            steps = np.full(new, old / new)
            steps[0] /= 2
            centres = torch.from_numpy(steps.cumsum().astype(np.int64))
            values = values.index_select(axis, centres.to(values.device))
    return values

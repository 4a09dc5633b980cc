"""Selects queries of one image, and makes instances of them.

Axes: Q queries, K classes, n kept queries; h×w the mask logits (stride 4), H'×W' the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.structures import Boxes, Instances
from torchvision.ops import box_convert

from detr_d2.modeling.merging_rules import competing_queries
from detr_d2.modeling.upsampling import ImageSizes, UpsampledMasks

# Instances whose masks are upsampled at a time, to bound memory.
MASKS_PER_CHUNK = 16


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


def checked_image(image_dict: dict) -> torch.Tensor:
    """The ``image`` of Detectron2's standard input.

    Raises:
        ValueError: it is not 3×H×W, or has no pixels; the message names its file, if there is one.
    """
    image = image_dict["image"]
    if image.dim() != 3 or len(image) != 3 or not image.numel():
        where = f"{image_dict['file_name']}: " if "file_name" in image_dict else ""
        raise ValueError(
            f"{where}the model takes images of 3×H×W with at least one pixel, this one has "
            f"{'×'.join(map(str, image.shape))}."
        )
    return image


def output_size(image_dict: dict, network_size: Sequence[int]) -> tuple[int, int]:
    """The (height, width) asked for; without, that of the network's input."""
    height, width = network_size
    return image_dict.get("height", height), image_dict.get("width", width)


def select_panoptic_queries(logits: torch.Tensor, score_thresh: float) -> QuerySelection:
    """The queries that compete for pixels, see ``competing_queries``."""
    scores, classes, competes = competing_queries(logits, score_thresh)
    return _select(competes, classes, scores)


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


def select_things(selection: QuerySelection, is_thing: torch.Tensor) -> QuerySelection:
    """Those queries of a selection whose class is one of things; ``is_thing`` is K bool."""
    kept = is_thing[selection.classes]
    return QuerySelection(
        selection.query_index[kept], selection.classes[kept], selection.scores[kept]
    )


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
    rows = torch.arange(sizes.output[0], device=masks.device)
    for start in range(0, len(mask_logits), MASKS_PER_CHUNK):
        chunk = slice(start, start + MASKS_PER_CHUNK)
        for some, logits in UpsampledMasks(mask_logits[chunk], sizes).strips(rows):
            masks[chunk, some] = logits > 0
    return masks

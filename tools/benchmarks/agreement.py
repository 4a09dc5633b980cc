"""Measures how far two panoptic pictures agree.

Axes: H×W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment


@dataclass(frozen=True)
class Picture:
    """A panoptic picture.

    Attributes:
        ids: H×W integers; an id without a class is void.
        class_of: the class of each id.
    """

    ids: torch.Tensor
    class_of: Mapping[int, int]

    @classmethod
    def from_output(cls, ids: torch.Tensor, segments_info: list[dict]) -> Picture:
        """Takes the ids and ``segments_info`` of our model."""
        return cls(ids.cpu(), {s["id"]: s["category_id"] for s in segments_info})

    @classmethod
    def from_transformers(cls, output: Mapping) -> Picture:
        """Reads one image's output of ``post_process_panoptic_segmentation``."""
        classes = {s["id"]: s["label_id"] for s in output["segments_info"]}
        return cls(output["segmentation"].cpu().int(), classes)


def equal_ids(picture: Picture, reference: Picture) -> float:
    """The share of pixels with the same id and class, in [0, 1], if both number ids alike."""
    keys, of_reference = _keys(picture), _keys(reference)
    return float(((picture.ids == reference.ids).numpy() & (keys == of_reference)).mean())


def equal_segments(picture: Picture, reference: Picture) -> float:
    """The share of pixels in the same segment, whatever its id, in [0, 1].

    Segments of one class are paired one to one such that most pixels agree; void agrees with void.
    """
    ids, others = picture.ids.numpy(), reference.ids.numpy()
    values, rows = np.unique(ids, return_inverse=True)
    other_values, columns = np.unique(others, return_inverse=True)
    pairs = rows.ravel() * len(other_values) + columns.ravel()
    overlap = np.bincount(pairs, minlength=len(values) * len(other_values))
    overlap = overlap.reshape(len(values), len(other_values))
    classes = np.array([picture.class_of.get(int(v), -1) for v in values])
    other_classes = np.array([reference.class_of.get(int(v), -1) for v in other_values])
    overlap = np.where(classes[:, None] == other_classes, overlap, 0)
    paired = linear_sum_assignment(overlap, maximize=True)
    return float(overlap[paired].sum() / ids.size)


def _keys(picture: Picture) -> np.ndarray:
    """H×W: the class of each pixel, -1 for void."""
    values, inverse = np.unique(picture.ids.numpy(), return_inverse=True)
    classes = np.array([picture.class_of.get(int(v), -1) for v in values])
    return classes[inverse].reshape(picture.ids.shape)

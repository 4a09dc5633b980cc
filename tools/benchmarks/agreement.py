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
    (classes, places), (other_classes, others) = _segments(picture), _segments(reference)
    same_class = classes[places] == other_classes[others]
    return float(((picture.ids == reference.ids).numpy() & same_class).mean())


def equal_segments(picture: Picture, reference: Picture) -> float:
    """The share of pixels in the same segment, whatever its id, in [0, 1].

    Segments of one class are paired one to one such that most pixels agree; void agrees with void.
    """
    (classes, places), (other_classes, others) = _segments(picture), _segments(reference)
    pairs = (places * len(other_classes) + others).ravel()
    overlap = np.bincount(pairs, minlength=len(classes) * len(other_classes))
    overlap = overlap.reshape(len(classes), len(other_classes))
    overlap = np.where(classes[:, None] == other_classes, overlap, 0)
    paired = linear_sum_assignment(overlap, maximize=True)
    return float(overlap[paired].sum() / pairs.size)


def _segments(picture: Picture) -> tuple[np.ndarray, np.ndarray]:
    """The classes of the n ids that occur, -1 for void, and H×W: which of them each pixel has."""
    values, places = np.unique(picture.ids.numpy(), return_inverse=True)
    classes = np.array([picture.class_of.get(int(v), -1) for v in values])
    return classes, places.reshape(picture.ids.shape)

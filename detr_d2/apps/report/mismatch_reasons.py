"""The reasons why segments of an image have no match.

Axes: G segments of the ground truth, P of the prediction.
"""

from __future__ import annotations

import numpy as np

from detr_d2.evaluation import SegmentMatching

# The first reason that applies is given.
REASONS = ("class", "outline", "nothing")
OTHER_CLASS, OUTLINE, NOTHING = range(3)
# Above this IoU, two segments of the same class show the same object, with a different outline.
ROUGH_IOU = 0.1


def find_reasons(matching: SegmentMatching) -> tuple[np.ndarray, np.ndarray]:
    """Finds a reason for every segment; it is meaningful for segments without a match.

    "class": the IoU with a segment of another class is above 0.5. "outline": the IoU with a segment
    of the same class is above ``ROUGH_IOU``. "nothing": neither.

    Returns:
        (G,) and (P,) integers, indices in ``REASONS``.
    """
    rough = ious_of_one_class(matching) > ROUGH_IOU
    other = pairs_of_other_classes(matching)
    of_truth, of_prediction = (
        np.select([other.any(axis), rough.any(axis)], [OTHER_CLASS, OUTLINE], NOTHING)
        for axis in (1, 0)
    )
    return of_truth, of_prediction


def pairs_of_other_classes(matching: SegmentMatching) -> np.ndarray:
    """(G, P) bool: pairs with an IoU above 0.5 whose classes differ."""
    return matching.overlap_pairs & ~matching.same_class


def ious_of_one_class(matching: SegmentMatching) -> np.ndarray:
    """(G, P) float64 in 0 … 1: IoUs of segments of the same class; 0 for other pairs and crowds."""
    comparable = matching.same_class & ~matching.gt.is_crowd[:, None]
    return np.where(comparable, matching.ious, 0)

"""Why segments of an image have no match.

Axes: G segments of the ground truth, P of the prediction.
"""

from __future__ import annotations

import numpy as np

from detr_d2.evaluation import SegmentMatching

# In the order in which they are looked for.
REASONS = ("class", "outline", "nothing")
OTHER_CLASS, OUTLINE, NOTHING = range(3)
# Segments of one class whose IoU lies between this and 0.5 have found each other, and badly.
ROUGH_IOU = 0.1


def find_reasons(matching: SegmentMatching) -> tuple[np.ndarray, np.ndarray]:
    """Why segments have no match: (G,) and (P,) places in ``REASONS``, of those without one.

    "class": IoU above 0.5 with a segment of another class. "outline": else, IoU above
    ``ROUGH_IOU`` with one of its own class. "nothing": neither.
    """
    rough = ious_of_one_class(matching) > ROUGH_IOU
    other = matching.covers & ~matching.same_class
    return tuple(
        np.select([other.any(axis), rough.any(axis)], [OTHER_CLASS, OUTLINE], NOTHING)
        for axis in (1, 0)
    )


def ious_of_one_class(matching: SegmentMatching) -> np.ndarray:
    """(G, P) float64 in 0 … 1: IoUs of segments of the same class, 0 for others and for crowds."""
    comparable = matching.same_class & ~matching.gt.is_crowd[:, None]
    return np.where(comparable, matching.ious, 0)

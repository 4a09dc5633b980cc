"""Which predicted segments of one image are right, which are not, and why.

The rule is that of ``detr_d2.evaluation.compare_panoptic``, which counts; here are the segments
that it counts, one by one, and those of another class that they lie on.

Axes: H×W pixels; G segments of the ground truth, P of the prediction.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from detr_d2.evaluation import Segments
from detr_d2.evaluation.run_lengths import find_runs

# Why a segment has no match, in the order in which reasons are looked for.
REASONS = ("class", "outline", "nothing")
OTHER_CLASS, OUTLINE, NOTHING = range(3)
# Segments of one class whose IoU lies between this and 0.5 have found each other, and badly.
ROUGH_IOU = 0.1


@dataclass(frozen=True, eq=False)
class SegmentMatching:
    """How the segments of one image lie on each other.

    Attributes:
        pred: the P predicted segments.
        gt: the G segments of the ground truth.
        overlaps: (G+1, P+1) int64, pixels that two segments share; void last on both axes.
    """

    pred: Segments
    gt: Segments
    overlaps: np.ndarray

    @classmethod
    def of_image(
        cls, pred_ids: np.ndarray, pred: Segments, gt_ids: np.ndarray, gt: Segments
    ) -> SegmentMatching:
        """Lays two (H, W) maps of segment ids on each other; ``compare_panoptic`` has taken them.

        Ids that aren't listed count as void.
        """
        pred_ids, gt_ids = pred_ids.ravel(), gt_ids.ravel()
        starts, lengths = find_runs(pred_ids, gt_ids)
        columns = len(pred.ids) + 1
        pairs = _place(gt_ids[starts], gt.ids) * columns + _place(pred_ids[starts], pred.ids)
        size = (len(gt.ids) + 1) * columns
        overlaps = np.bincount(pairs, weights=lengths, minlength=size).astype(np.int64)
        return cls(pred, gt, overlaps.reshape(-1, columns))

    @cached_property
    def pred_areas(self) -> np.ndarray:
        """(P,) int64 pixels."""
        return self.overlaps[:, :-1].sum(axis=0)

    @cached_property
    def gt_areas(self) -> np.ndarray:
        """(G,) int64 pixels."""
        return self.overlaps[:-1].sum(axis=1)

    @cached_property
    def ious(self) -> np.ndarray:
        """(G, P) float64; pixels that are void in the ground truth are left out of unions."""
        shared = self.overlaps[:-1, :-1]
        unions = self.gt_areas[:, None] + (self.pred_areas - self.overlaps[-1, :-1]) - shared
        return shared / np.maximum(unions, 1)

    @cached_property
    def same_class(self) -> np.ndarray:
        """(G, P) bool."""
        return self.gt.classes[:, None] == self.pred.classes

    @cached_property
    def covers(self) -> np.ndarray:
        """(G, P) bool: the pair has an IoU above 0.5, whatever the classes; crowds have no pair."""
        return (self.ious > 0.5) & ~self.gt.is_crowd[:, None]

    @cached_property
    def matches(self) -> np.ndarray:
        """(G, P) bool: the true positives, at most one in each row and column."""
        return self.covers & self.same_class

    @cached_property
    def is_forgiven(self) -> np.ndarray:
        """(P,) bool: more than half lies on void and on a crowd of its class, and none is asked."""
        forgiven = self.overlaps[-1, :-1].copy()
        crowds = {int(self.gt.classes[i]): i for i in np.flatnonzero(self.gt.is_crowd)}
        for class_id, crowd in crowds.items():  # the last of a class, as panopticapi has it
            of_class = self.pred.classes == class_id
            forgiven[of_class] += self.overlaps[crowd, :-1][of_class]
        return forgiven / np.maximum(self.pred_areas, 1) > 0.5

    @cached_property
    def is_found(self) -> np.ndarray:
        """(G,) bool: has a match."""
        return self.matches.any(axis=1)

    @cached_property
    def is_right(self) -> np.ndarray:
        """(P,) bool: has a match, a true positive."""
        return self.matches.any(axis=0)

    @cached_property
    def is_missed(self) -> np.ndarray:
        """(G,) bool: a false negative."""
        return ~self.gt.is_crowd & ~self.is_found

    @cached_property
    def is_surplus(self) -> np.ndarray:
        """(P,) bool: a false positive."""
        return ~self.is_forgiven & ~self.is_right

    def reasons(self) -> tuple[np.ndarray, np.ndarray]:
        """Why segments have no match: (G,) and (P,) places in ``REASONS``, of those without one.

        "class": IoU above 0.5 with a segment of another class. "outline": else, IoU above
        ``ROUGH_IOU`` with one of its own class. "nothing": neither.
        """
        rough = self.same_class & (self.ious > ROUGH_IOU) & ~self.gt.is_crowd[:, None]
        other = self.covers & ~self.same_class
        return tuple(
            np.select([other.any(axis), rough.any(axis)], [OTHER_CLASS, OUTLINE], NOTHING)
            for axis in (1, 0)
        )


def _place(ids: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """The place of each id in the list of N: int64, N where it isn't listed."""
    order = np.argsort(listed)
    ordered = listed[order]
    place = np.searchsorted(ordered, ids)
    is_listed = np.append(ordered, 0)[place] == ids
    is_listed &= place < len(listed)
    return np.where(is_listed, np.append(order, len(listed))[place], len(listed))

"""Panoptic quality (PQ, SQ, RQ) from the matched segments of images.

Definition: Kirillov et al., "Panoptic Segmentation" (CVPR 2019), section 4. Averages are those of
panopticapi's ``pq_compute``, but a group of classes without any segment scores NaN,
where panopticapi divides by zero.

Axes: G segments of an image in its ground truth, P in its prediction, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from detr_d2.evaluation.segment_matching import SegmentMatching

# A float64 in (0.5, 1] is a whole multiple of 2⁻⁵³. So the IoUs of matches add up exactly in this
# unit, and their sum depends neither on the order of images nor on how processes share them.
UNITS = 2**53
# The groups of classes that have figures, by panopticapi's names, and the endings of their figures'
# names in Detectron2.
GROUP_SUFFIXES = {"All": "", "Things": "_th", "Stuff": "_st"}


@dataclass(frozen=True, eq=False)
class Sums:
    """A base of dataclasses of arrays, or of other sums, that are added with ``+``."""

    def __add__(self, other: Self) -> Self:
        return replace(
            self, **{name: sum_ + vars(other)[name] for name, sum_ in vars(self).items()}
        )


@dataclass(frozen=True, eq=False)
class PanopticStats(Sums):
    """The sums from which PQ is computed, per class, over any number of images.

    The stats of several images are added with ``+``.

    Attributes:
        iou_units: (K,) Python integers, the sum of matched IoUs in units of 2⁻⁵³.
        tp: (K,) int64, matched pairs.
        fp: (K,) int64, predicted segments without a match.
        fn: (K,) int64, ground-truth segments without a match.
    """

    iou_units: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray

    @classmethod
    def zeros(cls, num_classes: int) -> PanopticStats:
        """The stats of no image."""
        counts = (np.zeros(num_classes, dtype=np.int64) for _ in range(3))
        return cls(np.zeros(num_classes, dtype=object), *counts)

    @classmethod
    def of_matching(cls, matching: SegmentMatching) -> PanopticStats:
        """The stats of one image."""
        gt, pred = matching.gt.classes, matching.pred.classes
        return cls.of_groups(matching, gt, pred, matching.num_classes)

    @classmethod
    def of_groups(
        cls,
        matching: SegmentMatching,
        gt_groups: np.ndarray,
        pred_groups: np.ndarray,
        num_groups: int,
    ) -> PanopticStats:
        """The stats of one image, summed over groups of segments instead of classes.

        Which segments match is still decided by their classes.

        Args:
            matching: G annotated and P predicted segments.
            gt_groups: (G,) integers in 0 … num_groups-1. A match counts in the group of its
                annotated segment.
            pred_groups: (P,) integers in 0 … num_groups-1, used for false positives.
            num_groups: takes the place of K.
        """
        matched_groups = gt_groups[np.nonzero(matching.matches)[0]]
        return cls(
            iou_units=exact_sums(matching.ious[matching.matches], matched_groups, num_groups),
            tp=np.bincount(matched_groups, minlength=num_groups),
            fp=np.bincount(pred_groups[matching.is_false_positive], minlength=num_groups),
            fn=np.bincount(gt_groups[matching.is_false_negative], minlength=num_groups),
        )

    @property
    def iou_sum(self) -> np.ndarray:
        """(K,) float64, the sum of the IoUs of matched pairs, rounded once."""
        return np.array([units / UNITS for units in self.iou_units], dtype=np.float64)

    @property
    def occurs(self) -> np.ndarray:
        """(K,) bool: the class has a segment that counts, so averages include it."""
        return self.tp + self.fp + self.fn > 0


@dataclass(frozen=True, eq=False)
class ClassQuality:
    """The quality of each class: (K,) float64 in 0 … 1, NaN where no segment counts."""

    pq: np.ndarray
    sq: np.ndarray
    rq: np.ndarray


@dataclass(frozen=True)
class GroupQuality:
    """The mean quality of the classes of a group that occur: 0 … 1, NaN where none occurs."""

    pq: float
    sq: float
    rq: float
    num_classes: int


def exact_sums(values: np.ndarray, groups: np.ndarray, num_groups: int) -> np.ndarray:
    """Adds up n floats of each group as (num_groups,) Python integers in units of 2⁻⁵³."""
    units = np.zeros(num_groups, dtype=object)
    for group, value in zip(groups.tolist(), values.tolist(), strict=True):
        units[group] += int(value * UNITS)
    return units


def class_quality(stats: PanopticStats) -> ClassQuality:
    """PQ, SQ (the mean IoU of matches, 0 without any) and RQ (an F1 score) of every class."""
    occurs = stats.occurs
    weight = np.where(occurs, stats.tp + 0.5 * stats.fp + 0.5 * stats.fn, np.nan)
    iou_sum = stats.iou_sum
    sq = np.where(occurs, iou_sum / np.maximum(stats.tp, 1), np.nan)
    return ClassQuality(pq=iou_sum / weight, sq=sq, rq=stats.tp / weight)


def group_quality(stats: PanopticStats, members: np.ndarray | None = None) -> GroupQuality:
    """Averages quality over a group of classes; each class has the same weight.

    Args:
        stats: the sums of K classes.
        members: (K,) bool, the classes of the group; by default all classes.
    """
    chosen = stats.occurs if members is None else stats.occurs & members
    count = int(chosen.sum())
    if count == 0:
        return GroupQuality(np.nan, np.nan, np.nan, 0)
    quality = class_quality(stats)
    pq, sq, rq = (float(part[chosen].mean()) for part in (quality.pq, quality.sq, quality.rq))
    return GroupQuality(pq, sq, rq, count)


def group_qualities(stats: PanopticStats, is_thing: Sequence[bool]) -> dict[str, GroupQuality]:
    """The quality of each group of ``GROUP_SUFFIXES``: all classes, things and stuff.

    Args:
        stats: the sums of K classes.
        is_thing: K flags.
    """
    things = np.asarray(is_thing, dtype=bool)
    members = {"All": np.ones_like(things), "Things": things, "Stuff": ~things}
    return {name: group_quality(stats, members[name]) for name in GROUP_SUFFIXES}

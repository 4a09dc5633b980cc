"""Panoptic quality of one image and of a whole dataset, on arrays alone.

Definition: Kirillov et al., "Panoptic Segmentation" (CVPR 2019), section 4. ``segment_matching``
finds what matches. Averages are panopticapi's ``pq_compute``'s, but that a group of classes without
any segment scores NaN instead of a division by zero.

Axes: H×W pixels, G segments of an image in its ground truth, P in its prediction, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detr_d2.evaluation.segment_matching import SegmentMatching, Segments, match_segments

# A float64 in (0.5, 1] is a whole multiple of 2⁻⁵³, so IoUs of matches counted in this unit add
# up exactly, and their sum does not depend on the order of images nor on how processes split them.
IOU_UNITS = 2**53


@dataclass(frozen=True, eq=False)
class PanopticStats:
    """What PQ needs to know of any number of images, per class; add them with ``+``.

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
        """The stats of one image by groups of another kind; what matches is decided by class.

        Args:
            matching: of G and P segments.
            gt_groups: (G,) integers, 0 … num_groups-1; matches count in that of their ground truth.
            pred_groups: (P,) integers alike, for predicted segments without a match.
            num_groups: takes the place of K.
        """
        iou_units = np.zeros(num_groups, dtype=object)
        matched_groups = gt_groups[np.nonzero(matching.matches)[0]]
        ious = matching.ious[matching.matches]
        for group, iou in zip(matched_groups.tolist(), ious.tolist(), strict=True):
            iou_units[group] += int(iou * IOU_UNITS)
        return cls(
            iou_units=iou_units,
            tp=np.bincount(matched_groups, minlength=num_groups),
            fp=np.bincount(pred_groups[matching.is_surplus], minlength=num_groups),
            fn=np.bincount(gt_groups[matching.is_missed], minlength=num_groups),
        )

    def __add__(self, other: PanopticStats) -> PanopticStats:
        return PanopticStats(
            self.iou_units + other.iou_units,
            self.tp + other.tp,
            self.fp + other.fp,
            self.fn + other.fn,
        )

    @property
    def iou_sum(self) -> np.ndarray:
        """(K,) float64 sum of the IoUs of matched pairs, rounded once."""
        return np.array([units / IOU_UNITS for units in self.iou_units], dtype=np.float64)

    @property
    def occurs(self) -> np.ndarray:
        """(K,) bool: the class has a segment that counts, and so enters averages."""
        return self.tp + self.fp + self.fn > 0


@dataclass(frozen=True, eq=False)
class ClassQuality:
    """Per-class quality: (K,) float64 in 0 … 1, NaN for classes without a segment that counts."""

    pq: np.ndarray
    sq: np.ndarray
    rq: np.ndarray


@dataclass(frozen=True)
class GroupQuality:
    """Mean quality over the classes of a group that occur: 0 … 1, NaN where none does."""

    pq: float
    sq: float
    rq: float
    num_classes: int


def class_quality(stats: PanopticStats) -> ClassQuality:
    """PQ, SQ (mean IoU of matches, 0 without any) and RQ (an F1 score) of every class."""
    occurs = stats.occurs
    weight = np.where(occurs, stats.tp + 0.5 * stats.fp + 0.5 * stats.fn, np.nan)
    iou_sum = stats.iou_sum
    sq = np.where(occurs, iou_sum / np.maximum(stats.tp, 1), np.nan)
    return ClassQuality(pq=iou_sum / weight, sq=sq, rq=stats.tp / weight)


def group_quality(stats: PanopticStats, members: np.ndarray | None = None) -> GroupQuality:
    """Averages quality over a group of classes, each class weighing the same.

    Args:
        stats: of K classes.
        members: (K,) bool, the classes of the group; all of them by default.
    """
    chosen = stats.occurs if members is None else stats.occurs & members
    count = int(chosen.sum())
    if count == 0:
        return GroupQuality(np.nan, np.nan, np.nan, 0)
    quality = class_quality(stats)
    pq, sq, rq = (float(part[chosen].mean()) for part in (quality.pq, quality.sq, quality.rq))
    return GroupQuality(pq, sq, rq, count)


def compare_panoptic(
    pred_ids: np.ndarray,
    pred_segments: Segments,
    gt_ids: np.ndarray,
    gt_segments: Segments,
    num_classes: int,
) -> PanopticStats:
    """Matches the predicted segments of one image with its ground truth.

    A pair matches when classes agree and IoU > 0.5, the pixels that are void in the ground truth
    being left out of the union. A crowd segment never matches and is never missed. A predicted
    segment without a match is forgiven when more than half of it lies on void, plus the crowd
    segment of its class: the last one listed, where there are several, because panopticapi
    remembers one per class. A ground-truth segment without pixels counts as missed.

    Args:
        pred_ids: (H, W) integers, the segment of each pixel; 0 is void unless listed.
        pred_segments: every segment of the map; ``is_crowd`` is ignored.
        gt_ids: (H, W) integers, 0 for void.
        gt_segments: the segments of the ground truth.
        num_classes: K; classes are 0 … K-1.

    Returns:
        The stats of this image.

    Raises:
        ValueError: shapes differ, an id of a map is not listed, a listed prediction has no pixel,
            the ground truth lists id 0, a class is out of range, or ids are not integers.
    """
    matching = match_segments(pred_ids, pred_segments, gt_ids, gt_segments, num_classes)
    return PanopticStats.of_matching(matching)

"""Panoptic quality of one image and of a whole dataset, on arrays alone.

Definition: Kirillov et al., "Panoptic Segmentation" (CVPR 2019), section 4. What the paper leaves
open (void, crowd, averages) follows panopticapi's ``pq_compute``, with two differences: areas are
always counted from pixels, and a group of classes without any segment scores NaN instead of a
division by zero.

Axes: H×W pixels, R runs of them, N segments of an image (G in its ground truth, P in its
prediction), K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detr_d2.evaluation.run_lengths import find_runs

VOID = 0  # the id of pixels that belong to no segment
# A float64 in (0.5, 1] is a whole multiple of 2⁻⁵³, so IoUs of matches counted in this unit add
# up exactly, and their sum does not depend on the order of images nor on how processes split them.
_IOU_UNITS = 2**53


@dataclass(frozen=True, eq=False)
class Segments:
    """The segments listed for one image; any sequences of integers, kept as arrays.

    Attributes:
        ids: (N,) int64, all different; the values of the image's id map.
        classes: (N,) int64 class of each segment.
        is_crowd: (N,) bool, True for a region of uncounted objects; default none.

    Raises:
        ValueError: lengths differ, an id occurs twice, or values are not integers.
    """

    ids: np.ndarray | Sequence[int]
    classes: np.ndarray | Sequence[int]
    is_crowd: np.ndarray | Sequence[bool] | None = None

    def __post_init__(self) -> None:
        ids = _to_int64(self.ids, "segment ids")
        classes = _to_int64(self.classes, "classes of segments")
        crowd = np.zeros(len(ids)) if self.is_crowd is None else np.asarray(self.is_crowd)
        if not len(ids) == len(classes) == len(crowd):
            raise ValueError(
                f"{len(ids)} segment ids, {len(classes)} classes and {len(crowd)} crowd flags"
            )
        unique, times = np.unique(ids, return_counts=True)
        if len(unique) < len(ids):
            raise ValueError(f"segments_info lists {_some(unique[times > 1])} more than once")
        for name, value in (("ids", ids), ("classes", classes), ("is_crowd", crowd.astype(bool))):
            object.__setattr__(self, name, value)


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
        return np.array([units / _IOU_UNITS for units in self.iou_units], dtype=np.float64)

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
    means = (float(values[chosen].mean()) for values in (quality.pq, quality.sq, quality.rq))
    return GroupQuality(*means, count)


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
    pred_ids = _integers(pred_ids, "predicted ids")
    gt_ids = _integers(gt_ids, "ground-truth ids")
    if pred_ids.ndim != 2 or pred_ids.shape != gt_ids.shape:
        raise ValueError(
            "the id maps of prediction and ground truth must have one shape (height, width), "
            f"got {pred_ids.shape} and {gt_ids.shape}"
        )
    _check_classes(pred_segments, num_classes, "prediction")
    _check_classes(gt_segments, num_classes, "ground truth")
    if VOID in gt_segments.ids:
        raise ValueError(f"ground truth: segments_info lists id {VOID}, which stands for void")

    overlaps = _count_overlaps(pred_ids, pred_segments, gt_ids, gt_segments)  # (G+1, P+1)
    pred_areas = overlaps[:, :-1].sum(axis=0)  # (P,)
    gt_areas = overlaps[:-1].sum(axis=1)  # (G,)
    pred_void = overlaps[-1, :-1]  # (P,)
    overlaps = overlaps[:-1, :-1]  # (G, P)
    if not pred_areas.all():
        absent = pred_segments.ids[pred_areas == 0]
        raise ValueError(f"prediction: segments_info lists {_some(absent)}, without any pixel")

    candidates = (gt_segments.classes[:, None] == pred_segments.classes) & (overlaps > 0)
    gt_index, pred_index = np.nonzero(candidates & ~gt_segments.is_crowd[:, None])
    shared = overlaps[gt_index, pred_index]
    unions = gt_areas[gt_index] + (pred_areas - pred_void)[pred_index] - shared
    ious = shared / unions
    matches = ious > 0.5
    gt_index, pred_index, ious = gt_index[matches], pred_index[matches], ious[matches]

    missed = ~gt_segments.is_crowd
    missed[gt_index] = False
    forgiven = pred_void + _overlap_with_crowd(overlaps, pred_segments, gt_segments)
    surplus = ~(forgiven / pred_areas > 0.5)
    surplus[pred_index] = False

    iou_units = np.zeros(num_classes, dtype=object)
    matched_classes = gt_segments.classes[gt_index]
    for class_id, iou in zip(matched_classes.tolist(), ious.tolist(), strict=True):
        iou_units[class_id] += int(iou * _IOU_UNITS)
    return PanopticStats(
        iou_units=iou_units,
        tp=np.bincount(matched_classes, minlength=num_classes),
        fp=np.bincount(pred_segments.classes[surplus], minlength=num_classes),
        fn=np.bincount(gt_segments.classes[missed], minlength=num_classes),
    )


def _count_overlaps(
    pred_ids: np.ndarray, pred_segments: Segments, gt_ids: np.ndarray, gt_segments: Segments
) -> np.ndarray:
    """Pixels shared by each pair of segments: (G+1, P+1) int64, void last on both axes."""
    pred_ids, gt_ids = pred_ids.ravel(), gt_ids.ravel()
    starts, lengths = find_runs(pred_ids, gt_ids)
    rows, columns = len(gt_segments.ids) + 1, len(pred_segments.ids) + 1
    pairs = _segment_index(gt_ids[starts], gt_segments, "ground truth") * columns
    pairs += _segment_index(pred_ids[starts], pred_segments, "prediction")
    # Summed as float64, which has all whole numbers up to 2⁵³.
    overlaps = np.bincount(pairs, weights=lengths, minlength=rows * columns)
    return overlaps.astype(np.int64).reshape(rows, columns)


def _segment_index(ids: np.ndarray, segments: Segments, whose: str) -> np.ndarray:
    """The place of each run's segment in the list, N for void: (R,) int64."""
    ids = ids.astype(np.int64)
    order = np.argsort(segments.ids)
    place = np.searchsorted(segments.ids[order], ids)  # 0 … N, so both tables get an N-th entry
    table_ids = np.append(segments.ids[order], VOID)
    table_index = np.append(order, len(order))
    listed = table_ids[place] == ids
    unknown = ids[~listed & (ids != VOID)]
    if unknown.size:
        raise ValueError(f"{whose}: segments_info lacks {_some(np.unique(unknown))} of the id map")
    return np.where(listed, table_index[place], len(order))


def _overlap_with_crowd(
    overlaps: np.ndarray, pred_segments: Segments, gt_segments: Segments
) -> np.ndarray:
    """Pixels of each prediction on the last crowd segment listed for its class: (P,) int64."""
    crowd_of_class = {int(gt_segments.classes[i]): i for i in np.flatnonzero(gt_segments.is_crowd)}
    shared = np.zeros(len(pred_segments.ids), dtype=np.int64)
    for class_id, crowd in crowd_of_class.items():
        same_class = pred_segments.classes == class_id
        shared[same_class] = overlaps[crowd, same_class]
    return shared


def _check_classes(segments: Segments, num_classes: int, whose: str) -> None:
    wrong = (segments.classes < 0) | (segments.classes >= num_classes)
    if wrong.any():
        raise ValueError(
            f"{whose}: class {segments.classes[wrong][0]} of {_some(segments.ids[wrong])} is "
            f"outside 0 … {num_classes - 1}"
        )


def _to_int64(values: np.ndarray | Sequence[int], what: str) -> np.ndarray:
    return _integers(values, what).astype(np.int64)


def _integers(values: np.ndarray | Sequence[int], what: str) -> np.ndarray:
    """An array of any type of integers, where they fit int64; no copy of one."""
    array = np.asarray(values)
    if array.size == 0:  # NumPy takes an empty list for floats
        return np.zeros(array.shape, dtype=np.int64)
    too_large = array.dtype.kind == "u" and array.max() > np.iinfo(np.int64).max
    if array.dtype.kind not in "iu" or too_large:
        raise ValueError(f"{what} must be integers of at most 63 bits, got {array.dtype}")
    return array


def _some(ids: np.ndarray, limit: int = 5) -> str:
    shown = ", ".join(str(i) for i in ids[:limit].tolist())
    more = f", … ({len(ids)} in all)" if len(ids) > limit else ""
    return f"segment{'s' if len(ids) > 1 else ''} {shown}{more}"

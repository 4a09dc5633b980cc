"""Which segments of a prediction match those of the ground truth of an image.

Definition: Kirillov et al., "Panoptic Segmentation" (CVPR 2019), section 4. What the paper leaves
open (void, crowd) follows panopticapi's ``pq_compute``, but areas are always counted from pixels.

Axes: H×W pixels, R runs of them, N segments of an image (G in its ground truth, P in its
prediction), K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from detr_d2.data.panoptic_fields import is_crowd
from detr_d2.evaluation.run_lengths import find_runs

VOID = 0  # the id of pixels that belong to no segment


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

    ids: np.ndarray
    classes: np.ndarray
    is_crowd: np.ndarray = None  # type: ignore[assignment]  # __post_init__ puts an array there

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

    @classmethod
    def from_info(cls, segments_info: Sequence[dict]) -> Segments:
        """Those of Detectron2's ``segments_info``, with contiguous ``category_id``."""
        return cls(
            ids=np.array([segment["id"] for segment in segments_info]),
            classes=np.array([segment["category_id"] for segment in segments_info]),
            is_crowd=np.array([is_crowd(segment) for segment in segments_info]),
        )


@dataclass(frozen=True, eq=False)
class SegmentMatching:
    """How the segments of one image lie on each other, and which of them are right.

    Attributes:
        pred: the P predicted segments.
        gt: the G segments of the ground truth.
        overlaps: (G+1, P+1) int64, pixels that two segments share; void last on both axes.
        num_classes: K.
    """

    pred: Segments
    gt: Segments
    overlaps: np.ndarray
    num_classes: int

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
        # 0 where the one has no pixel and the other lies on void alone: nothing is shared.
        return shared / np.maximum(unions, 1)

    @cached_property
    def same_class(self) -> np.ndarray:
        """(G, P) bool."""
        return self.gt.classes[:, None] == self.pred.classes

    @cached_property
    def covers(self) -> np.ndarray:
        """(G, P) bool: the pair has an IoU above 0.5, whatever the classes; crowds have no pair.

        At most one in each row and column.
        """
        return (self.ious > 0.5) & ~self.gt.is_crowd[:, None]

    @cached_property
    def matches(self) -> np.ndarray:
        """(G, P) bool: the true positives, pairs of one class whose IoU is above 0.5."""
        return self.covers & self.same_class

    @cached_property
    def is_found(self) -> np.ndarray:
        """(G,) bool: has a match."""
        return np.asarray(self.matches.any(axis=1))

    @cached_property
    def is_right(self) -> np.ndarray:
        """(P,) bool: has a match."""
        return np.asarray(self.matches.any(axis=0))

    @cached_property
    def is_missed(self) -> np.ndarray:
        """(G,) bool: false negatives. Crowds are none, segments without a pixel are."""
        return ~self.gt.is_crowd & ~self.is_found

    @cached_property
    def is_forgiven(self) -> np.ndarray:
        """(P,) bool: has no match, but more than half of it lies on void plus a crowd of its class.

        The last crowd listed, where a class has several, because panopticapi remembers one.
        """
        forgiven = self.overlaps[-1, :-1].copy()
        crowd_of_class = {int(self.gt.classes[i]): i for i in np.flatnonzero(self.gt.is_crowd)}
        for class_id, crowd in crowd_of_class.items():
            of_class = self.pred.classes == class_id
            forgiven[of_class] += self.overlaps[crowd, :-1][of_class]
        return (forgiven / self.pred_areas > 0.5) & ~self.is_right

    @cached_property
    def is_surplus(self) -> np.ndarray:
        """(P,) bool: false positives."""
        return ~self.is_right & ~self.is_forgiven


def match_segments(
    pred_ids: np.ndarray,
    pred_segments: Segments,
    gt_ids: np.ndarray,
    gt_segments: Segments,
    num_classes: int,
) -> SegmentMatching:
    """Lays the predicted segments of one image on its ground truth.

    Args:
        pred_ids: (H, W) integers, the segment of each pixel; 0 is void unless listed.
        pred_segments: every segment of the map; ``is_crowd`` is ignored.
        gt_ids: (H, W) integers, 0 for void.
        gt_segments: the segments of the ground truth.
        num_classes: K; classes are 0 … K-1.

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

    overlaps = _count_overlaps(pred_ids, pred_segments, gt_ids, gt_segments)
    matching = SegmentMatching(pred_segments, gt_segments, overlaps, num_classes)
    if not matching.pred_areas.all():
        absent = pred_segments.ids[matching.pred_areas == 0]
        raise ValueError(f"prediction: segments_info lists {_some(absent)}, without any pixel")
    return matching


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

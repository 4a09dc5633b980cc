"""The predicted segments of an image, matched with the segments of its ground truth.

Definition: Kirillov et al., "Panoptic Segmentation" (CVPR 2019), section 4. The paper leaves void
and crowds open: for them the rules are those of panopticapi's ``pq_compute``. Areas are always
counted from pixels.

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
    """The list of an image's segments. It takes any sequences of integers and keeps arrays.

    Attributes:
        ids: (N,) int64, all different; the values of the image's id map.
        classes: (N,) int64 class of each segment.
        is_crowd: (N,) bool, True for a region of uncounted objects. By default no segment is one.

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
        """Reads Detectron2's ``segments_info``, with contiguous ``category_id``."""
        return cls(
            ids=np.array([segment["id"] for segment in segments_info]),
            classes=np.array([segment["category_id"] for segment in segments_info]),
            is_crowd=np.array([is_crowd(segment) for segment in segments_info]),
        )


@dataclass(frozen=True, eq=False)
class SegmentMatching:
    """How the segments of one image overlap, and which of them match.

    A pair matches when its classes agree and its IoU is above 0.5. Pixels that are void in the
    ground truth are left out of the union. Each predicted segment is a true positive, a false
    positive or ignored.

    Attributes:
        pred: the P predicted segments.
        gt: the G segments of the ground truth.
        overlaps: (G+1, P+1) int64, the pixels that two segments share; void is last on both axes.
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
        """(G, P) float64 in 0 … 1."""
        shared = self.overlaps[:-1, :-1]
        unions = self.gt_areas[:, None] + (self.pred_areas - self.overlaps[-1, :-1]) - shared
        # A union is 0 where the annotated segment has no pixel and the predicted one lies on void.
        return shared / np.maximum(unions, 1)

    @cached_property
    def same_class(self) -> np.ndarray:
        """(G, P) bool."""
        return self.gt.classes[:, None] == self.pred.classes

    @cached_property
    def overlap_pairs(self) -> np.ndarray:
        """(G, P) bool: the pair has an IoU above 0.5, whatever its classes. Crowds have no pair.

        There is at most one such pair in each row and column.
        """
        return (self.ious > 0.5) & ~self.gt.is_crowd[:, None]

    @cached_property
    def matches(self) -> np.ndarray:
        """(G, P) bool: pairs of the same class with an IoU above 0.5."""
        return self.overlap_pairs & self.same_class

    @cached_property
    def is_found(self) -> np.ndarray:
        """(G,) bool: the annotated segment has a match."""
        return np.asarray(self.matches.any(axis=1))

    @cached_property
    def is_true_positive(self) -> np.ndarray:
        """(P,) bool: the predicted segment has a match."""
        return np.asarray(self.matches.any(axis=0))

    @cached_property
    def is_false_negative(self) -> np.ndarray:
        """(G,) bool: the annotated segment has no match and is no crowd.

        A segment without pixels counts, too.
        """
        return ~self.gt.is_crowd & ~self.is_found

    @cached_property
    def is_ignored(self) -> np.ndarray:
        """(P,) bool: no match, but more than half of it lies on void and a crowd of its class.

        Where a class has several crowds, only the last one in the list counts, as in panopticapi.
        """
        unlabelled = self.overlaps[-1, :-1].copy()
        crowd_of_class = {int(self.gt.classes[i]): i for i in np.flatnonzero(self.gt.is_crowd)}
        for class_id, crowd in crowd_of_class.items():
            of_class = self.pred.classes == class_id
            unlabelled[of_class] += self.overlaps[crowd, :-1][of_class]
        return (unlabelled / self.pred_areas > 0.5) & ~self.is_true_positive

    @cached_property
    def is_false_positive(self) -> np.ndarray:
        """(P,) bool: the predicted segment has no match and is not ignored."""
        return ~self.is_true_positive & ~self.is_ignored


def match_segments(
    pred_ids: np.ndarray,
    pred_segments: Segments,
    gt_ids: np.ndarray,
    gt_segments: Segments,
    num_classes: int,
) -> SegmentMatching:
    """Compares the predicted segments of one image with its ground truth.

    Args:
        pred_ids: (H, W) integers, the segment of each pixel; 0 is void unless it is listed.
        pred_segments: every segment of the map; their ``is_crowd`` is not used.
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
    # The weights are summed as float64, which holds every whole number up to 2⁵³.
    overlaps = np.bincount(pairs, weights=lengths, minlength=rows * columns)
    return overlaps.astype(np.int64).reshape(rows, columns)


def _segment_index(ids: np.ndarray, segments: Segments, whose: str) -> np.ndarray:
    """The index in the list of each run's segment, N for void: (R,) int64."""
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
    """The values as an array of integers that fit int64; an array is not copied."""
    array = np.asarray(values)
    if array.size == 0:  # NumPy makes floats of an empty list.
        return np.zeros(array.shape, dtype=np.int64)
    too_large = array.dtype.kind == "u" and array.max() > np.iinfo(np.int64).max
    if array.dtype.kind not in "iu" or too_large:
        raise ValueError(f"{what} must be integers of at most 63 bits, got {array.dtype}")
    return array


def _some(ids: np.ndarray, limit: int = 5) -> str:
    shown = ", ".join(str(i) for i in ids[:limit].tolist())
    more = f", … ({len(ids)} in all)" if len(ids) > limit else ""
    return f"segment{'s' if len(ids) > 1 else ''} {shown}{more}"

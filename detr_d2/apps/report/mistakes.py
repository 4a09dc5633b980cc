"""The false positives and false negatives of one image, described one by one.

Axes: G segments of the ground truth, P of the prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detr_d2.apps.report.mismatch_reasons import (
    OTHER_CLASS,
    REASONS,
    find_reasons,
    ious_of_one_class,
    pairs_of_other_classes,
)
from detr_d2.evaluation import SegmentMatching


@dataclass(frozen=True)
class Mistake:
    """A segment without a match.

    Attributes:
        place: the index of its image in the dataset.
        segment_id: of a false positive in the prediction, of a false negative in the ground truth.
        class_id: 0 … K-1.
        area: in pixels.
        score: of a predicted segment, if it has one.
        reason: one of ``REASONS``.
        other: the class of the overlapping segment, where the reason is "class".
        iou: the highest IoU with a segment of its class.
    """

    place: int
    segment_id: int
    class_id: int
    area: int
    score: float | None
    reason: str
    other: int | None
    iou: float


def find_mistakes(
    place: int, matching: SegmentMatching, scores: np.ndarray | None
) -> tuple[list[Mistake], list[Mistake]]:
    """Lists the false positives and the false negatives of an image.

    Args:
        place: the index of the image in the dataset.
        matching: its segments.
        scores: (P,) float64, or None if the predicted segments have no scores.
    """
    gt, pred = matching.gt, matching.pred
    gt_reasons, pred_reasons = find_reasons(matching)
    ious, pairs = ious_of_one_class(matching), pairs_of_other_classes(matching)
    false_positives = [
        Mistake(
            place=place,
            segment_id=int(pred.ids[p]),
            class_id=int(pred.classes[p]),
            area=int(matching.pred_areas[p]),
            score=None if scores is None else float(scores[p]),
            reason=REASONS[pred_reasons[p]],
            other=_class_of_pair(pred_reasons[p], gt.classes, pairs[:, p]),
            iou=float(ious[:, p].max(initial=0)),
        )
        for p in np.flatnonzero(matching.is_false_positive)
    ]
    false_negatives = [
        Mistake(
            place=place,
            segment_id=int(gt.ids[g]),
            class_id=int(gt.classes[g]),
            area=int(matching.gt_areas[g]),
            score=None,
            reason=REASONS[gt_reasons[g]],
            other=_class_of_pair(gt_reasons[g], pred.classes, pairs[g]),
            iou=float(ious[g].max(initial=0)),
        )
        for g in np.flatnonzero(matching.is_false_negative)
    ]
    return false_positives, false_negatives


def _class_of_pair(reason: int, classes: np.ndarray, is_pair: np.ndarray) -> int | None:
    return int(classes[is_pair.argmax()]) if reason == OTHER_CLASS else None

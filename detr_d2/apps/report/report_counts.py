"""The counts from which a report is made. They are whole numbers: any order gives the same sums.

Axes: K classes; P predicted segments of an image; T score thresholds; S bins of sizes; C bins of
scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detr_d2.apps.report.mismatch_reasons import REASONS, find_reasons
from detr_d2.evaluation import PanopticStats, SegmentMatching
from detr_d2.evaluation.panoptic_quality import UNITS, Sums, exact_sums

# The sizes at which new bins begin. The size of a segment is the side, in pixels, of a square that
# has the segment's area.
SIZE_EDGES = (16, 32, 64, 128, 256, 512)
# The number of bins of scores, of equal width over 0 … 1.
NUM_SCORE_BINS = 20


@dataclass(frozen=True, eq=False)
class Calibration(Sums):
    """The predicted segments in bins of scores, without the ignored ones.

    Attributes:
        count: (C,) int64, segments.
        tp: (C,) int64, those of them that are true positives.
        score_units: (C,) Python integers, the sum of the segments' scores in units of 2⁻⁵³.
    """

    count: np.ndarray
    tp: np.ndarray
    score_units: np.ndarray

    @classmethod
    def of_scores(cls, scores: np.ndarray, is_true_positive: np.ndarray) -> Calibration:
        """Sorts n segments into bins: their scores in 0 … 1 are floats, the flags are bool."""
        bins = np.minimum((scores * NUM_SCORE_BINS).astype(np.int64), NUM_SCORE_BINS - 1)
        count, tp = (
            np.bincount(some, minlength=NUM_SCORE_BINS) for some in (bins, bins[is_true_positive])
        )
        return cls(count, tp, exact_sums(scores, bins, NUM_SCORE_BINS))

    @property
    def mean_score(self) -> np.ndarray:
        """(C,) float64 in 0 … 1, NaN for empty bins."""
        counts = zip(self.score_units, self.count.tolist(), strict=True)
        return np.array([units / UNITS / n if n else np.nan for units, n in counts])

    @property
    def precision(self) -> np.ndarray:
        """(C,) float64 in 0 … 1, the share of true positives, NaN for empty bins."""
        return np.where(self.count > 0, self.tp / np.maximum(self.count, 1), np.nan)

    @property
    def expected_error(self) -> float:
        """The expected calibration error: the mean distance of scores and precision, by segment."""
        if not self.count.any():
            return float("nan")
        some = self.count > 0
        gaps = np.abs(self.precision - self.mean_score)[some]
        return float((gaps * self.count[some]).sum() / self.count.sum())


@dataclass(frozen=True, eq=False)
class ReportCounts(Sums):
    """The counts of any number of images. The counts of several images are added with ``+``.

    Attributes:
        stats: for PQ, at the score threshold of the run.
        sweep: (T,) ``PanopticStats`` for PQ, one for each score threshold.
        sizes: stats for PQ with the S bins of sizes in place of classes. True positives and false
            negatives count at the size of the annotated segment, false positives at their own.
        calibration: the scores, and whether they belong to true positives.
        pixels: (K+1, K+1) int64, pixels by annotated class (rows) and predicted class (columns).
            The last row stands for void and crowds, the last column for pixels of no segment.
        segments: (K+1, K+1) int64, pairs with an IoU above 0.5, by annotated and predicted class.
            The last row and the last column stand for segments that are in no pair.
        fp_reasons: (K, 3) int64, false positives by class and by reason, see ``REASONS``.
        fn_reasons: (K, 3) int64, false negatives in the same way.
    """

    stats: PanopticStats
    sweep: np.ndarray
    sizes: PanopticStats
    calibration: Calibration
    pixels: np.ndarray
    segments: np.ndarray
    fp_reasons: np.ndarray
    fn_reasons: np.ndarray

    @classmethod
    def zeros(cls, num_classes: int, num_thresholds: int) -> ReportCounts:
        """The counts of no image."""
        none = PanopticStats.zeros(num_classes)
        return cls(
            stats=none,
            sweep=np.full(num_thresholds, none, dtype=object),
            sizes=PanopticStats.zeros(len(SIZE_EDGES) + 1),
            calibration=Calibration.of_scores(np.zeros(0), np.zeros(0, dtype=bool)),
            pixels=np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64),
            segments=np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64),
            fp_reasons=np.zeros((num_classes, len(REASONS)), dtype=np.int64),
            fn_reasons=np.zeros((num_classes, len(REASONS)), dtype=np.int64),
        )

    @classmethod
    def of_image(
        cls,
        matching: SegmentMatching,
        sweep: Sequence[PanopticStats],
        scores: np.ndarray | None,
    ) -> ReportCounts:
        """Counts one image.

        Args:
            matching: its segments.
            sweep: its stats at T thresholds.
            scores: (P,) float64, or None if the predicted segments have no scores.
        """
        num_classes = matching.num_classes
        gt_reasons, pred_reasons = find_reasons(matching)
        is_fn, is_fp = matching.is_false_negative, matching.is_false_positive
        is_scored = np.zeros_like(is_fp) if scores is None else ~matching.is_ignored
        scored = np.zeros(0) if scores is None else scores[is_scored]
        return cls(
            stats=PanopticStats.of_matching(matching),
            sweep=np.array(sweep, dtype=object),
            sizes=_stats_by_size(matching),
            calibration=Calibration.of_scores(scored, matching.is_true_positive[is_scored]),
            pixels=_confused_pixels(matching, num_classes),
            segments=_confused_segments(matching, num_classes),
            fp_reasons=_table(matching.pred.classes[is_fp], pred_reasons[is_fp], num_classes),
            fn_reasons=_table(matching.gt.classes[is_fn], gt_reasons[is_fn], num_classes),
        )


def _stats_by_size(matching: SegmentMatching) -> PanopticStats:
    edges = np.square(SIZE_EDGES)
    of_gt = np.searchsorted(edges, matching.gt_areas, side="right")
    of_pred = np.searchsorted(edges, matching.pred_areas, side="right")
    return PanopticStats.of_groups(matching, of_gt, of_pred, len(edges) + 1)


def _confused_pixels(matching: SegmentMatching, num_classes: int) -> np.ndarray:
    gt_classes = np.where(matching.gt.is_crowd, num_classes, matching.gt.classes)
    rows = np.append(gt_classes, num_classes).astype(np.int64)
    columns = np.append(matching.pred.classes, num_classes).astype(np.int64)
    pixels = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    np.add.at(pixels, (rows[:, None], columns[None]), matching.overlaps)
    return pixels


def _confused_segments(matching: SegmentMatching, num_classes: int) -> np.ndarray:
    segments = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    gt_index, pred_index = np.nonzero(matching.overlap_pairs)
    np.add.at(segments, (matching.gt.classes[gt_index], matching.pred.classes[pred_index]), 1)
    alone = ~matching.overlap_pairs.any(axis=1) & ~matching.gt.is_crowd
    np.add.at(segments, (matching.gt.classes[alone], num_classes), 1)
    alone = ~matching.overlap_pairs.any(axis=0) & ~matching.is_ignored
    np.add.at(segments, (num_classes, matching.pred.classes[alone]), 1)
    return segments


def _table(classes: np.ndarray, reasons: np.ndarray, num_classes: int) -> np.ndarray:
    """(K, 3) int64: the number of segments of each class and reason."""
    table = np.zeros((num_classes, len(REASONS)), dtype=np.int64)
    np.add.at(table, (classes, reasons), 1)
    return table

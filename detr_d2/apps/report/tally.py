"""What a report counts. All of it is whole numbers, so that it adds up to the same in any order.

Axes: K classes; P predicted segments of an image; T score thresholds; S bins of size, C of scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from detr_d2.apps.report.mismatch_reasons import REASONS, find_reasons
from detr_d2.evaluation import PanopticStats, SegmentMatching

# Sizes, as the side in pixels of a square of the segment's area, at which a new bin begins.
SIZE_EDGES = (16, 32, 64, 128, 256, 512)
# Bins of scores, equally wide over 0 … 1.
NUM_SCORE_BINS = 20
# Scores are summed in units of 2⁻⁵³, as whole numbers.
SCORE_UNITS = 2**53


@dataclass(frozen=True, eq=False)
class Calibration:
    """Predicted segments by their scores; those that are forgiven are left out.

    Attributes:
        count: (C,) int64 segments of each bin.
        right: (C,) int64 of them that are true positives.
        score_units: (C,) Python integers, the sum of their scores in units of 2⁻⁵³.
    """

    count: np.ndarray
    right: np.ndarray
    score_units: np.ndarray

    @classmethod
    def of_scores(cls, scores: np.ndarray, is_right: np.ndarray) -> Calibration:
        """Sorts n segments, by their scores in 0 … 1, into bins; whether they are right is bool."""
        bins = np.minimum((scores * NUM_SCORE_BINS).astype(np.int64), NUM_SCORE_BINS - 1)
        units = np.zeros(NUM_SCORE_BINS, dtype=object)
        for place, score in zip(bins.tolist(), scores.tolist(), strict=True):
            units[place] += int(score * SCORE_UNITS)
        count, right = (
            np.bincount(some, minlength=NUM_SCORE_BINS) for some in (bins, bins[is_right])
        )
        return cls(count, right, units)

    def __add__(self, other: Calibration) -> Calibration:
        return Calibration(
            self.count + other.count,
            self.right + other.right,
            self.score_units + other.score_units,
        )

    @property
    def mean_score(self) -> np.ndarray:
        """(C,) float64 in 0 … 1, NaN for empty bins."""
        counts = zip(self.score_units, self.count.tolist(), strict=True)
        return np.array([units / SCORE_UNITS / n if n else np.nan for units, n in counts])

    @property
    def precision(self) -> np.ndarray:
        """(C,) float64 share of each bin that is right, NaN for empty bins."""
        return np.where(self.count > 0, self.right / np.maximum(self.count, 1), np.nan)

    @property
    def expected_error(self) -> float:
        """ECE: how far scores are from the share that is right, each segment weighing the same."""
        if not self.count.any():
            return float("nan")
        some = self.count > 0
        gaps = np.abs(self.precision - self.mean_score)[some]
        return float((gaps * self.count[some]).sum() / self.count.sum())


@dataclass(frozen=True, eq=False)
class Tally:
    """What is known of any number of images; add them with ``+``.

    Attributes:
        stats: of PQ, at the threshold of the run.
        sweep: T stats of PQ, one for each score threshold.
        sizes: stats whose classes are the S bins of size: matches and misses by the area of the
            ground truth, surplus segments by their own.
        calibration: scores, and whether they are right.
        pixels: (K+1, K+1) int64, the ground truth's class and the predicted one; K stands for void
            and crowds in the rows, and for no segment in the columns.
        segments: (K+1, K+1) int64, pairs with an IoU above 0.5 whatever their classes; K stands
            for no partner.
        surplus_reasons: (K, 3) int64, false positives by class and place in ``REASONS``.
        missed_reasons: (K, 3) int64, false negatives alike.
    """

    stats: PanopticStats
    sweep: tuple[PanopticStats, ...]
    sizes: PanopticStats
    calibration: Calibration
    pixels: np.ndarray
    segments: np.ndarray
    surplus_reasons: np.ndarray
    missed_reasons: np.ndarray

    @classmethod
    def zeros(cls, num_classes: int, num_thresholds: int) -> Tally:
        """What is known of no image."""
        none = PanopticStats.zeros(num_classes)
        return cls(
            stats=none,
            sweep=(none,) * num_thresholds,
            sizes=PanopticStats.zeros(len(SIZE_EDGES) + 1),
            calibration=Calibration.of_scores(np.zeros(0), np.zeros(0, dtype=bool)),
            pixels=np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64),
            segments=np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64),
            surplus_reasons=np.zeros((num_classes, len(REASONS)), dtype=np.int64),
            missed_reasons=np.zeros((num_classes, len(REASONS)), dtype=np.int64),
        )

    @classmethod
    def of_image(
        cls,
        matching: SegmentMatching,
        sweep: Sequence[PanopticStats],
        scores: np.ndarray | None,
    ) -> Tally:
        """Of one image: its segments, its stats at T thresholds, and P scores.

        The scores are None where segments have none.
        """
        num_classes = matching.num_classes
        of_missed, of_surplus = find_reasons(matching)
        missed, surplus = matching.is_missed, matching.is_surplus
        asked = np.zeros_like(surplus) if scores is None else ~matching.is_forgiven
        scored = np.zeros(0) if scores is None else scores[asked]
        return cls(
            stats=PanopticStats.of_matching(matching),
            sweep=tuple(sweep),
            sizes=_stats_by_size(matching),
            calibration=Calibration.of_scores(scored, matching.is_right[asked]),
            pixels=_confused_pixels(matching, num_classes),
            segments=_confused_segments(matching, num_classes),
            surplus_reasons=_table(
                matching.pred.classes[surplus], of_surplus[surplus], num_classes
            ),
            missed_reasons=_table(matching.gt.classes[missed], of_missed[missed], num_classes),
        )

    def __add__(self, other: Tally) -> Tally:
        sums = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in fields(self)
            if field.name != "sweep"
        }
        sweep = tuple(a + b for a, b in zip(self.sweep, other.sweep, strict=True))
        return Tally(sweep=sweep, **sums)


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
    gt_index, pred_index = np.nonzero(matching.covers)
    np.add.at(segments, (matching.gt.classes[gt_index], matching.pred.classes[pred_index]), 1)
    alone = ~matching.covers.any(axis=1) & ~matching.gt.is_crowd
    np.add.at(segments, (matching.gt.classes[alone], num_classes), 1)
    alone = ~matching.covers.any(axis=0) & ~matching.is_forgiven
    np.add.at(segments, (num_classes, matching.pred.classes[alone]), 1)
    return segments


def _table(classes: np.ndarray, reasons: np.ndarray, num_classes: int) -> np.ndarray:
    """(K, 3) int64: how often each class goes with each reason."""
    table = np.zeros((num_classes, len(REASONS)), dtype=np.int64)
    np.add.at(table, (classes, reasons), 1)
    return table

"""PQ at other score thresholds, without running the model again.

Axes: H×W pixels of an image; T rising thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from detr_d2.evaluation import PanopticStats, SegmentMatching

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))  # 0.05 … 0.95


def thresholds_with(score_thresh: float | None) -> tuple[float, ...]:
    """``THRESHOLDS`` together with the run's own threshold, if it is known."""
    own = () if score_thresh is None else (score_thresh,)
    return tuple(sorted({*THRESHOLDS, *own}))


class Sweep(Protocol):
    """The prediction of one image at any score threshold in 0 … 1."""

    def count(self, threshold: float) -> int:
        """The number of queries, or of segments, with a score above the threshold."""

    def panoptic(self, threshold: float) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """The (H, W) ids and their segments at a threshold."""


class RawSweep:
    """The queries of a model. At each threshold, the masks of the queries above it compete again.

    No other class of the report calls a ``RawPrediction``.
    """

    def __init__(self, raw: Any) -> None:
        """Takes a ``RawPrediction``. Its own options apply, except for the threshold."""
        self._raw = raw

    def count(self, threshold: float) -> int:
        return len(self._raw.competing(threshold))

    def panoptic(self, threshold: float) -> tuple[np.ndarray, list[dict[str, Any]]]:
        options = replace(self._raw.options.panoptic, score_thresh=threshold)
        ids, segments_info = self._raw.panoptic(options)
        return ids.cpu().numpy(), segments_info


class SavedSweep:
    """Saved segments. Those below the threshold are dropped, and their pixels become void."""

    def __init__(self, ids: np.ndarray, segments_info: Sequence[dict[str, Any]]) -> None:
        """
        Args:
            ids: (H, W) integers.
            segments_info: the segments of the ids; those without a score are never dropped.
        """
        self._ids, self._segments = ids, list(segments_info)

    def count(self, threshold: float) -> int:
        return len(self._above(threshold))

    def panoptic(self, threshold: float) -> tuple[np.ndarray, list[dict[str, Any]]]:
        kept = self._above(threshold)
        is_kept = np.isin(self._ids, [segment["id"] for segment in kept])
        return np.where(is_kept, self._ids, 0), kept

    def _above(self, threshold: float) -> list[dict[str, Any]]:
        return [s for s in self._segments if s.get("score") is None or s["score"] > threshold]


def sweep_stats(
    sweep: Sweep,
    thresholds: Sequence[float],
    match: Callable[[np.ndarray, list[dict[str, Any]]], SegmentMatching],
) -> list[PanopticStats]:
    """Computes the stats of one image at T thresholds.

    Thresholds with no score between them have the same result, which is computed once.

    Args:
        sweep: the image.
        thresholds: T of them, rising.
        match: compares (H, W) ids and their segments with the ground truth.
    """
    by_count: dict[int, PanopticStats] = {}
    stats = []
    for threshold in thresholds:
        count = sweep.count(threshold)
        if count not in by_count:
            with torch.no_grad():
                by_count[count] = PanopticStats.of_matching(match(*sweep.panoptic(threshold)))
        stats.append(by_count[count])
    return stats

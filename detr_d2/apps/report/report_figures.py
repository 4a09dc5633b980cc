"""All figures of a run in JSON's types: ``report.json`` holds them, and the page shows them.

Figures of quality are in 0 … 100, and None where no segment counts.

Axes: K classes.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import numpy as np

from detr_d2.apps.report.mismatch_reasons import REASONS
from detr_d2.apps.report.mistakes import Mistake
from detr_d2.apps.report.report_counts import NUM_SCORE_BINS, SIZE_EDGES, Calibration, ReportCounts
from detr_d2.apps.report.run_record import RunRecord
from detr_d2.data.categories import PanopticClasses
from detr_d2.evaluation import GROUP_SUFFIXES, PanopticStats, class_quality, group_qualities

FIGURES = ("PQ", "SQ", "RQ")


def run_figures(
    run: RunRecord,
    records: list[dict[str, Any]],
    classes: PanopticClasses,
    letter: str | None = None,
) -> dict[str, Any]:
    """The figures of a run. PQ, SQ and RQ equal those of ``PanopticEvaluator`` to the last digit.

    Args:
        run: the record of the run.
        records: the dataset's dicts.
        classes: the dataset's classes.
        letter: the name of one of two runs in the page; None for a single run.
    """
    counts = run.counts
    return {
        "name": run.options.name,
        "letter": letter,
        "num_images": len(run.images),
        "num_images_of_dataset": len(records),
        "score_thresh": run.options.score_thresh,
        "groups": _groups(counts.stats, classes),
        "classes": _classes(counts, classes),
        "sweep": _sweep(run, classes),
        "sizes": _sizes(counts.sizes),
        "calibration": _calibration(counts.calibration),
        "reasons": {
            "false_positives": _by_reason(counts.fp_reasons.sum(0)),
            "false_negatives": _by_reason(counts.fn_reasons.sum(0)),
        },
        "confusion": {
            "classes": [*classes.names, None],
            "pixels": _sparse(counts.pixels),
            "segments": _sparse(counts.segments),
        },
        "false_positives": [
            _mistake(m, records, classes) for m in run.ranking.false_positives.items
        ],
        "false_negatives": [
            _mistake(m, records, classes) for m in run.ranking.false_negatives.items
        ],
        "images": [
            {
                "image_id": records[image.place]["image_id"],
                "file_name": PurePath(records[image.place]["file_name"]).name,
                "PQ": _percent(image.pq),
                **{"TP": image.tp, "FP": image.fp, "FN": image.fn},
            }
            for image in run.images
        ],
    }


def _groups(stats: PanopticStats, classes: PanopticClasses) -> dict[str, Any]:
    groups = {}
    for name, quality in group_qualities(stats, classes.is_thing).items():
        values = map(_percent, (quality.pq, quality.sq, quality.rq))
        figures = dict(zip(FIGURES, values, strict=True))
        groups[name.lower()] = {**figures, "num_classes": quality.num_classes}
    return groups


def _classes(counts: ReportCounts, classes: PanopticClasses) -> list[dict[str, Any]]:
    stats, quality = counts.stats, class_quality(counts.stats)
    return [
        {
            "id": classes.dataset_ids[k],
            "name": classes.names[k],
            "isthing": classes.is_thing[k],
            **{
                name: _percent(values[k])
                for name, values in zip(FIGURES, (quality.pq, quality.sq, quality.rq), strict=True)
            },
            **{"TP": int(stats.tp[k]), "FP": int(stats.fp[k]), "FN": int(stats.fn[k])},
            "false_positives": _by_reason(counts.fp_reasons[k]),
            "false_negatives": _by_reason(counts.fn_reasons[k]),
        }
        for k in range(len(classes.names))
    ]


def _sweep(run: RunRecord, classes: PanopticClasses) -> dict[str, Any]:
    points: list[dict[str, Any]] = []
    for threshold, stats in zip(run.options.thresholds, run.counts.sweep, strict=True):
        groups = group_qualities(stats, classes.is_thing)
        pq = {f"PQ{GROUP_SUFFIXES[name]}": _percent(group.pq) for name, group in groups.items()}
        points.append({"score_thresh": threshold, **pq})
    known = [point for point in points if point["PQ"] is not None]
    best = max(known, key=lambda point: point["PQ"], default=None)
    return {"recomputes_masks": run.options.recomputes_masks, "best": best, "points": points}


def _sizes(stats: PanopticStats) -> list[dict[str, Any]]:
    quality = class_quality(stats)
    edges = [0, *(edge**2 for edge in SIZE_EDGES), None]
    rows = []
    for i, (low, high) in enumerate(zip(edges, edges[1:], strict=False)):
        segments = int(stats.tp[i] + stats.fn[i])
        rows.append(
            {
                "from_area": low,
                "below_area": high,
                "segments": segments,
                "TP": int(stats.tp[i]),
                "FP": int(stats.fp[i]),
                "recall": 100 * int(stats.tp[i]) / segments if segments else None,
                "SQ": _percent(quality.sq[i]) if stats.tp[i] else None,
                "PQ": _percent(quality.pq[i]),
            }
        )
    return rows


def _calibration(calibration: Calibration) -> dict[str, Any]:
    count = int(calibration.count.sum())
    mean_score, precision = calibration.mean_score, calibration.precision
    bins = [
        {
            "from_score": i / NUM_SCORE_BINS,
            "segments": int(calibration.count[i]),
            "TP": int(calibration.tp[i]),
            "mean_score": _percent(mean_score[i]),
            "precision": _percent(precision[i]),
        }
        for i in range(NUM_SCORE_BINS)
    ]
    mean = np.nansum(mean_score * calibration.count) / count if count else float("nan")
    return {
        "segments": count,
        "ECE": _percent(calibration.expected_error),
        "mean_score": _percent(mean),
        "precision": _percent(int(calibration.tp.sum()) / count if count else float("nan")),
        "bins": bins,
    }


def _by_reason(counts: np.ndarray) -> dict[str, int]:
    return dict(zip(REASONS, map(int, counts), strict=True))


def _sparse(counts: np.ndarray) -> list[list[int]]:
    """[row, column, count] of every count that is not 0."""
    rows, columns = np.nonzero(counts)
    return np.stack([rows, columns, counts[rows, columns]], axis=1).tolist()


def _mistake(
    mistake: Mistake, records: list[dict[str, Any]], classes: PanopticClasses
) -> dict[str, Any]:
    return {
        "image_id": records[mistake.place]["image_id"],
        "segment_id": mistake.segment_id,
        "class": classes.names[mistake.class_id],
        "area": mistake.area,
        "score": mistake.score,
        "reason": mistake.reason,
        "other_class": None if mistake.other is None else classes.names[mistake.other],
        "IoU": _percent(mistake.iou),
    }


def _percent(value: float) -> float | None:
    value = 100 * float(value)
    return value if value == value else None

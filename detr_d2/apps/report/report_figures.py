"""All figures of a run as JSON has them: what ``report.json`` holds, and the page shows.

Figures of quality are in 0 … 100, and None where nothing counts. Axes: K classes.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import numpy as np

from detr_d2.apps.report.mismatch_reasons import REASONS
from detr_d2.apps.report.ranking import Mistake
from detr_d2.apps.report.run_record import RunRecord
from detr_d2.apps.report.tally import NUM_SCORE_BINS, SIZE_EDGES, Calibration, Tally
from detr_d2.data.categories import PanopticClasses
from detr_d2.evaluation import PanopticStats, class_quality, group_quality

FIGURES = ("PQ", "SQ", "RQ")


def run_figures(
    run: RunRecord,
    records: list[dict[str, Any]],
    classes: PanopticClasses,
    letter: str | None = None,
) -> dict[str, Any]:
    """The figures of a run on a dataset, given by its dicts and classes.

    One of two runs has a letter, by which the page calls it.

    Those of PQ, SQ and RQ are ``PanopticEvaluator``'s to the last digit.
    """
    tally = run.tally
    return {
        "name": run.options.name,
        "letter": letter,
        "num_images": len(run.images),
        "num_images_of_dataset": len(records),
        "score_thresh": run.options.score_thresh,
        "groups": _groups(tally.stats, classes),
        "classes": _classes(tally, classes),
        "sweep": _sweep(run, classes),
        "sizes": _sizes(tally.sizes),
        "calibration": _calibration(tally.calibration),
        "reasons": {
            "false_positives": _by_reason(tally.surplus_reasons.sum(0)),
            "false_negatives": _by_reason(tally.missed_reasons.sum(0)),
        },
        "confusion": {
            "classes": [*classes.names, None],
            "pixels": _sparse(tally.pixels),
            "segments": _sparse(tally.segments),
        },
        "false_positives": [_mistake(m, records, classes) for m in run.ranking.surplus.items],
        "false_negatives": [_mistake(m, records, classes) for m in run.ranking.missed.items],
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
    is_thing = np.array(classes.is_thing)
    members = {"all": None, "things": is_thing, "stuff": ~is_thing}
    groups = {}
    for name, mask in members.items():
        quality = group_quality(stats, mask)
        values = (quality.pq, quality.sq, quality.rq)
        groups[name] = dict(zip(FIGURES, map(_percent, values), strict=True))
        groups[name]["num_classes"] = quality.num_classes
    return groups


def _classes(tally: Tally, classes: PanopticClasses) -> list[dict[str, Any]]:
    stats, quality = tally.stats, class_quality(tally.stats)
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
            "false_positives": _by_reason(tally.surplus_reasons[k]),
            "false_negatives": _by_reason(tally.missed_reasons[k]),
        }
        for k in range(len(classes.names))
    ]


def _sweep(run: RunRecord, classes: PanopticClasses) -> dict[str, Any]:
    points = []
    for threshold, stats in zip(run.options.thresholds, run.tally.sweep, strict=True):
        groups = _groups(stats, classes)
        suffixes = {"all": "", "things": "_th", "stuff": "_st"}
        pq = {f"PQ{suffixes[name]}": group["PQ"] for name, group in groups.items()}
        points.append({"score_thresh": threshold, **pq})
    known = [point for point in points if point["PQ"] is not None]
    best = max(known, key=lambda point: point["PQ"], default=None)
    return {"masks_fight_anew": run.options.is_refought, "best": best, "points": points}


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
                "found": int(stats.tp[i]),
                "surplus": int(stats.fp[i]),
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
            "right": int(calibration.right[i]),
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
        "precision": _percent(int(calibration.right.sum()) / count if count else float("nan")),
        "bins": bins,
    }


def _by_reason(counts: np.ndarray) -> dict[str, int]:
    return dict(zip(REASONS, map(int, counts), strict=True))


def _sparse(counts: np.ndarray) -> list[list[int]]:
    """[row, column, count] of all counts but 0."""
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

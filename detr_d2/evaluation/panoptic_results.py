"""The results of a panoptic evaluation: Detectron2's dict of figures, and tables for the log.

Axes: K classes.
"""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
from tabulate import tabulate

from detr_d2.data.categories import PanopticClasses
from detr_d2.evaluation.panoptic_quality import (
    GROUP_SUFFIXES,
    GroupQuality,
    PanopticStats,
    class_quality,
    group_qualities,
)

logger = logging.getLogger(__name__)


def panoptic_figures(stats: PanopticStats, classes: PanopticClasses) -> dict[str, float]:
    """The figures of a dataset in one flat dict, which Detectron2 writes to its event storage.

    Returns:
        Figures in 0 … 100, NaN where no segment counts: PQ, SQ and RQ over all classes, the same
        with the endings of ``GROUP_SUFFIXES``, and ``PQ-<name>`` of every class.
    """
    figures = {}
    for name, group in group_qualities(stats, classes.is_thing).items():
        for figure in ("pq", "sq", "rq"):
            figures[figure.upper() + GROUP_SUFFIXES[name]] = 100 * getattr(group, figure)
    times = Counter(classes.names)
    pq = class_quality(stats).pq
    for class_id, name in enumerate(classes.names):
        key = name if times[name] == 1 else f"{name} ({classes.dataset_ids[class_id]})"
        figures[f"PQ-{key}"] = 100 * float(pq[class_id])
    return figures


def log_panoptic_quality(stats: PanopticStats, classes: PanopticClasses, dataset_name: str) -> None:
    """Logs one table of the groups of classes, and one of the classes."""
    _log_groups(group_qualities(stats, classes.is_thing), dataset_name)
    _log_classes(stats, classes)


def _log_groups(groups: dict[str, GroupQuality], dataset_name: str) -> None:
    rows = [
        [name, 100 * group.pq, 100 * group.sq, 100 * group.rq, group.num_classes]
        for name, group in groups.items()
    ]
    table = _table(rows, ["", "PQ", "SQ", "RQ", "#categories"])
    logger.info("Panoptic Evaluation Results:\n" + table)
    empty = [name.lower() for name in ("Things", "Stuff") if groups[name].num_classes == 0]
    if empty:
        logger.info(
            f"no {' and no '.join(empty)} in the evaluated images of {dataset_name}: their PQ is "
            "undefined (NaN)"
        )


def _log_classes(stats: PanopticStats, classes: PanopticClasses) -> None:
    """Logs a table of classes, without those that have no segment: 133 would be hard to read."""
    quality = class_quality(stats)
    rows = [
        [
            classes.names[k],
            *(100 * float(values[k]) for values in (quality.pq, quality.sq, quality.rq)),
            *(int(counts[k]) for counts in (stats.tp, stats.fp, stats.fn)),
        ]
        for k in np.flatnonzero(stats.occurs)
    ]
    table = _table(rows, ["class", "PQ", "SQ", "RQ", "TP", "FP", "FN"])
    absent = len(classes.names) - len(rows)
    rest = f" ({absent} classes without any segment left out)" if absent else ""
    logger.info(f"Panoptic quality per class{rest}:\n{table}")


def _table(rows: list[list], headers: list[str]) -> str:
    return tabulate(
        rows,
        headers=headers,
        tablefmt="pipe",
        floatfmt=".3f",
        stralign="center",
        numalign="center",
    )

"""The charts of a report, each with a table of the same figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detr_d2.apps.report.report_tables import number
from detr_d2.apps.report.svg_charts import Series, bar_chart, line_chart, reliability_chart
from detr_d2.evaluation import GROUP_SUFFIXES

RUN_STYLES = ("run-a", "run-b")
GROUP_STYLES = {"All": "run-a", "Things": "things", "Stuff": "stuff"}
# The columns of the table of sizes, and the style of those that the chart of one run shows.
SIZE_FIGURES = ("TP", "FP", "recall", "SQ", "PQ")
SIZE_STYLES = {"recall": "second", "SQ": "third", "PQ": "run-a"}


def sweep_chart(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """PQ over the score threshold: one run has lines for all, things and stuff; two have PQ."""
    if len(runs) == 1:
        lines = [
            (name, style, runs[0], f"PQ{GROUP_SUFFIXES[name]}")
            for name, style in GROUP_STYLES.items()
        ]
    else:
        lines = [(_long_name(run), style, run, "PQ") for style, run in _styled(runs)]
    series = [
        Series(name, style, [(p["score_thresh"], p[key]) for p in run["sweep"]["points"]])
        for name, style, run, key in lines
        if any(p[key] is not None for p in run["sweep"]["points"])
    ]
    thresholds = [p["score_thresh"] for p in runs[0]["sweep"]["points"]]
    rows = [[number(t), *(number(dict(one.points).get(t)) for one in series)] for t in thresholds]
    marks = []
    for style, run in _styled(runs):
        best, of_run = run["sweep"]["best"], f" of {run['letter']}" if run["letter"] else ""
        if best is not None:
            text = f"best{of_run}: {best['PQ']:.2f} at {best['score_thresh']:g}"
            marks.append((style, best["score_thresh"], text))
    if runs[0]["score_thresh"] is not None:
        threshold = runs[0]["score_thresh"]
        marks.append(("current", threshold, f"as evaluated: {threshold:g}"))
    chart = line_chart(
        "PQ over the score threshold",
        series,
        x_title="score threshold",
        y_title="PQ",
        x_range=_with_room(thresholds[0], thresholds[-1]),
        marks=marks,
    )
    return _with_table(chart, series, ["threshold", *(one.name for one in series)], rows)


def _with_room(low: float, high: float) -> tuple[float, float]:
    """The two ends of an axis, which differ even if there is only one threshold."""
    return (low, high) if low < high else (low - 0.05, high + 0.05)


def size_chart(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures over the size of segments: recall, SQ and PQ of one run, or the PQ of two runs."""
    occurring = [
        i for i, rows in enumerate(zip(*(run["sizes"] for run in runs), strict=True))
        if any(row["segments"] + row["FP"] for row in rows)
    ]  # fmt: skip
    labels = [_size_label(runs[0]["sizes"][i]) for i in occurring]
    if len(runs) == 1:
        lines = [(figure, style, runs[0], figure) for figure, style in SIZE_STYLES.items()]
    else:
        lines = [(f"PQ of {_long_name(run)}", style, run, "PQ") for style, run in _styled(runs)]
    series = [
        Series(name, style, [(place, run["sizes"][i][key]) for place, i in enumerate(occurring)])
        for name, style, run, key in lines
    ]
    rows = []
    for label, i in zip(labels, occurring, strict=True):
        row = [label, number(runs[0]["sizes"][i]["segments"])]
        for run in runs:
            row += [number(run["sizes"][i][figure]) for figure in SIZE_FIGURES]
        rows.append(row)
    columns = [
        f"{figure} {run['letter']}" if run["letter"] else figure
        for run in runs
        for figure in SIZE_FIGURES
    ]
    chart = bar_chart(
        "Quality over the size of segments",
        labels,
        series,
        x_title="side of a square of the segment's area, pixels",
        y_title="%",
        top=100,
    )
    return _with_table(chart, series, ["side", "segments", *columns], rows)


def _size_label(size: dict[str, Any]) -> str:
    low = round(size["from_area"] ** 0.5)
    if size["below_area"] is None:
        return f"≥ {low}"
    high = round(size["below_area"] ** 0.5)
    return f"{low}–{high}" if low else f"< {high}"


def calibration_chart(runs: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Precision over the score; None if no run has scores."""
    if not any(run["calibration"]["segments"] for run in runs):
        return None
    series, rows = [], []
    for style, run in _styled(runs):
        bins, letter = [b for b in run["calibration"]["bins"] if b["segments"]], run["letter"]
        name = _long_name(run) if letter else "precision"
        series.append(Series(name, style, [(b["mean_score"], b["precision"]) for b in bins]))
        for one in bins:
            values = [one["segments"], one["TP"], one["mean_score"], one["precision"]]
            label = f"{one['from_score']:.2f} …"
            rows.append([label, *([letter] if letter else []), *map(number, values)])
    counts = [one["segments"] for one in runs[0]["calibration"]["bins"]]
    chart = reliability_chart("Precision over the score", series, counts)
    head = ["score", *(["run"] if len(runs) == 2 else []), "segments", "TP"]
    return _with_table(chart, series, [*head, "mean score, %", "precision, %"], rows)


def _styled(runs: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Each run with its style."""
    return list(zip(RUN_STYLES, runs, strict=False))


def _long_name(run: dict[str, Any]) -> str:
    return f"{run['letter']}: {run['name']}"


def _with_table(
    chart: str, series: Sequence[Series], head: Sequence[str], rows: Sequence[Sequence[Any]]
) -> dict[str, Any]:
    legend = [{"name": one.name, "style": one.style} for one in series]
    return {"chart": chart, "legend": legend, "head": head, "rows": rows}

"""The charts of a report, each with the table of what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detr_d2.apps.report.report_tables import number
from detr_d2.apps.report.svg_charts import Series, bar_chart, line_chart, reliability_chart

RUN_STYLES = ("run-a", "run-b")


def sweep_graph(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """PQ over the score threshold: of all, things and stuff, or of all in two runs."""
    if len(runs) == 1:
        kinds = {"All": ("PQ", "run-a"), "Things": ("PQ_th", "things"), "Stuff": ("PQ_st", "stuff")}
        lines = [(name, style, runs[0], key) for name, (key, style) in kinds.items()]
    else:
        lines = [
            (f"{run['letter']}: {run['name']}", style, run, "PQ")
            for style, run in zip(RUN_STYLES, runs, strict=True)
        ]
    series = [
        Series(name, style, [(p["score_thresh"], p[key]) for p in run["sweep"]["points"]])
        for name, style, run, key in lines
        if any(p[key] is not None for p in run["sweep"]["points"])
    ]
    thresholds = [p["score_thresh"] for p in runs[0]["sweep"]["points"]]
    rows = [[number(t), *(number(dict(one.points).get(t)) for one in series)] for t in thresholds]
    marks = []
    for style, run in zip(RUN_STYLES, runs, strict=False):
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
    return _graph(chart, series, ["threshold", *(one.name for one in series)], rows)


def _with_room(low: float, high: float) -> tuple[float, float]:
    """Two ends that aren't the same, also where there is one threshold alone."""
    return (low, high) if low < high else (low - 0.05, high + 0.05)


def size_graph(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Recall, SQ and PQ over the size of segments, or PQ in two runs."""
    some = [
        i for i, rows in enumerate(zip(*(run["sizes"] for run in runs), strict=True))
        if any(row["segments"] + row["surplus"] for row in rows)
    ]  # fmt: skip
    labels = [_size_label(runs[0]["sizes"][i]) for i in some]
    if len(runs) == 1:
        lines = [
            ("recall", "second", runs[0], "recall"),
            ("SQ", "third", runs[0], "SQ"),
            ("PQ", "run-a", runs[0], "PQ"),
        ]
    else:
        lines = [
            (f"PQ of {run['letter']}: {run['name']}", style, run, "PQ")
            for style, run in zip(RUN_STYLES, runs, strict=True)
        ]
    series = [
        Series(name, style, [(place, run["sizes"][i][key]) for place, i in enumerate(some)])
        for name, style, run, key in lines
    ]
    rows = []
    for label, i in zip(labels, some, strict=True):
        row = [label, number(runs[0]["sizes"][i]["segments"])]
        for run in runs:
            size = run["sizes"][i]
            row += [number(size[key]) for key in ("found", "surplus", "recall", "SQ", "PQ")]
        rows.append(row)
    of_run = ["found", "surplus", "recall", "SQ", "PQ"]
    if len(runs) == 2:
        of_run = [f"{name} {letter}" for letter in "AB" for name in of_run]
    chart = bar_chart(
        "Quality over the size of segments",
        labels,
        series,
        x_title="side of a square of the segment's area, pixels",
        y_title="%",
        top=100,
    )
    return _graph(chart, series, ["side", "segments", *of_run], rows)


def _size_label(size: dict[str, Any]) -> str:
    low = round(size["from_area"] ** 0.5)
    if size["below_area"] is None:
        return f"≥ {low}"
    high = round(size["below_area"] ** 0.5)
    return f"{low}–{high}" if low else f"< {high}"


def calibration_graph(runs: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """How far scores can be trusted; None where no run has scores."""
    if not any(run["calibration"]["segments"] for run in runs):
        return None
    series, rows = [], []
    for style, run in zip(RUN_STYLES, runs, strict=False):
        bins, letter = [b for b in run["calibration"]["bins"] if b["segments"]], run["letter"]
        name = f"{letter}: {run['name']}" if letter else "share that is right"
        series.append(Series(name, style, [(b["mean_score"], b["precision"]) for b in bins]))
        for one in bins:
            values = [one["segments"], one["right"], one["mean_score"], one["precision"]]
            label = f"{one['from_score']:.2f} …"
            rows.append([label, *([letter] if letter else []), *map(number, values)])
    counts = [one["segments"] for one in runs[0]["calibration"]["bins"]]
    chart = reliability_chart("Share of right segments over their scores", series, counts)
    head = ["score", *(["run"] if len(runs) == 2 else []), "segments", "right"]
    return _graph(chart, series, [*head, "mean score, %", "right, %"], rows)


def _graph(
    chart: str, series: Sequence[Series], head: Sequence[str], rows: Sequence[Sequence[Any]]
) -> dict[str, Any]:
    legend = [{"name": one.name, "style": one.style} for one in series]
    return {"chart": chart, "legend": legend, "head": head, "rows": rows}

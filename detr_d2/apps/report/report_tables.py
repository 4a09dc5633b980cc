"""The tables of a report: numbers for people, of one run or of two and their difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detr_d2.apps.report.report_figures import FIGURES

COUNTS = ("TP", "FP", "FN")
# More of these is better; of the counts, only true positives are.
MORE_IS_BETTER = {*FIGURES, "TP"}


@dataclass(frozen=True)
class Cell:
    """A number: as it is shown, as it is (None: nothing counts), and what it means.

    Attributes:
        text: for people.
        value: by which rows are sorted.
        style: "good", "bad" or "".
        bar: 0 … 100, the length of a bar behind it, or None.
    """

    text: str
    value: float | None
    style: str = ""
    bar: float | None = None


def number(value: float | None, digits: int = 2, *, bar: bool = False) -> Cell:
    """A figure or a count; – where there is none."""
    if value is None:
        return Cell("–", None)
    text = f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"
    return Cell(text, value, bar=value if bar else None)


def difference(before: float | None, after: float | None, *, more_is_better: bool) -> Cell:
    """What a figure has gained, with its sign."""
    if before is None or after is None:
        return Cell("–", None)
    gain = after - before
    text = f"{gain:+,}" if isinstance(gain, int) else f"{gain:+.2f}"
    if float(text.replace(",", "")) == 0:
        return Cell("±0", gain)
    style = "good" if (gain > 0) == more_is_better else "bad"
    return Cell(text.replace("-", "−"), gain, style)


def group_cards(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For all, things and stuff: PQ, SQ and RQ of each run, and of two the difference."""
    cards = []
    for group in runs[0]["groups"]:
        of_runs = [run["groups"][group] for run in runs]
        rows = [{"figure": figure, "cells": _cells(of_runs, figure)} for figure in FIGURES]
        counts = [of_run["num_classes"] for of_run in of_runs]
        cards.append({"group": group, "rows": rows, "num_classes": counts})
    return cards


def class_table(
    runs: Sequence[dict[str, Any]], colors: Sequence[Sequence[int]] | None
) -> dict[str, Any]:
    """Columns and rows of the table of classes; of two runs each figure has three columns.

    Classes that don't occur in any run are counted and left out.
    """
    columns = [
        {"figure": figure, "label": label, "starts": i == 0}
        for figure in (*FIGURES, *COUNTS)
        for i, label in enumerate(["A", "B", "B − A"] if len(runs) == 2 else [figure])
    ]
    rows = []
    for k, classes in enumerate(zip(*(run["classes"] for run in runs), strict=True)):
        if all(one["PQ"] is None for one in classes):
            continue
        cells = [cell for figure in (*FIGURES, *COUNTS) for cell in _cells(classes, figure)]
        color = None if not colors else "#" + "".join(f"{int(c):02x}" for c in colors[k])
        kind = "thing" if classes[0]["isthing"] else "stuff"
        rows.append({"name": classes[0]["name"], "kind": kind, "color": color, "cells": cells})
    return {
        "columns": columns,
        "rows": rows,
        "num_absent": len(runs[0]["classes"]) - len(rows),
        "figures": (*FIGURES, *COUNTS),
    }


def _cells(of_runs: Sequence[dict[str, Any]], figure: str) -> list[Cell]:
    values = [of_run[figure] for of_run in of_runs]
    cells = [number(value, bar=figure == "PQ") for value in values]
    if len(values) == 2:
        cells.append(difference(*values, more_is_better=figure in MORE_IS_BETTER))
    return cells

"""The tables of a report: the figures of one run, or of two runs and their differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detr_d2.apps.report.report_figures import FIGURES

COUNTS = ("TP", "FP", "FN")
# The columns in which a higher number is better.
MORE_IS_BETTER = {*FIGURES, "TP"}


@dataclass(frozen=True)
class Cell:
    """A number in a table.

    Attributes:
        text: the number as the page shows it.
        value: the number by which rows are sorted; None if no segment counts.
        style: "good", "bad" or "".
        bar: 0 … 100, the length of a bar behind the text, or None.
    """

    text: str
    value: float | None
    style: str = ""
    bar: float | None = None


def number(value: float | None, digits: int = 2, *, bar: bool = False) -> Cell:
    """The cell of a figure or a count; it shows – for None."""
    if value is None:
        return Cell("–", None)
    text = f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"
    return Cell(text, value, bar=value if bar else None)


def difference(before: float | None, after: float | None, *, more_is_better: bool) -> Cell:
    """The cell of the difference between two figures, with its sign."""
    if before is None or after is None:
        return Cell("–", None)
    gain = after - before
    text = f"{gain:+,}" if isinstance(gain, int) else f"{gain:+.2f}"
    if float(text.replace(",", "")) == 0:
        return Cell("±0", gain)
    style = "good" if (gain > 0) == more_is_better else "bad"
    return Cell(text.replace("-", "−"), gain, style)


def group_cards(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """PQ, SQ and RQ of each group of classes: of each run, and the difference of two runs."""
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
    """The columns and rows of the table of classes. With two runs, a figure has three columns.

    Classes that occur in no run are left out; ``num_absent`` is their number.
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

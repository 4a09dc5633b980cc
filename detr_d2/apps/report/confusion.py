"""Confusion of classes, as tables with shaded cells and as lists.

Axes: K classes. Tables have one more row and column, for void or for no segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detr_d2.apps.report.run_record import RunRecord
from detr_d2.data.categories import PanopticClasses

# The page leaves out tables of more classes than this; it always has the list of confusions.
MAX_TABLE_CLASSES = 40
# The number of confusions in a list.
NUM_LISTED = 10


@dataclass(frozen=True)
class ConfusionCell:
    """One pair of classes.

    Attributes:
        count: pixels or pairs of segments.
        share: the count in percent of its row.
        text: a sentence for people.
        is_correct: whether the classes agree.
    """

    count: int
    share: float
    text: str
    is_correct: bool


@dataclass(frozen=True)
class ConfusionView:
    """One table and one list.

    Attributes:
        key: the id of the table in the page.
        label: of the button that shows it.
        unit: what is counted, "segments" or "pixels".
        columns: the names of the columns.
        rows: the names of the rows with their cells; None if there are too many classes.
        largest: a sentence for each of the largest confusions, the largest first.
    """

    key: str
    label: str
    unit: str
    columns: list[str]
    rows: list[tuple[str, list[ConfusionCell]]] | None
    largest: list[str]


def confusion_views(runs: Sequence[RunRecord], classes: PanopticClasses) -> list[ConfusionView]:
    """The confusion of segments and of pixels, for each run."""
    views = []
    for letter, run in zip("AB", runs, strict=False):
        prefix = f"{letter}: " if len(runs) == 2 else ""
        for unit, counts in (("segments", run.counts.segments), ("pixels", run.counts.pixels)):
            views.append(_view(f"{unit}-{letter.lower()}", prefix + unit, unit, counts, classes))
    return views


def _view(
    key: str, label: str, unit: str, counts: np.ndarray, classes: PanopticClasses
) -> ConfusionView:
    none = len(classes.names)
    row_names = [*classes.names, "void" if unit == "pixels" else "no segment"]
    column_names = [*classes.names, "nothing"]
    occurring = (counts.sum(0) + counts.sum(1) > 0)[:none]
    shown = [*np.flatnonzero(occurring).tolist(), none]
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)

    def sentence(row: int, column: int) -> str:
        count = int(counts[row, column])
        counted = f"{count:,} {unit}" if count != 1 else f"1 {unit[:-1]}"
        of_row = f"{shares[row, column]:.1f}\u202f% of “{row_names[row]}”"
        return f"{row_names[row]} → {column_names[column]}: {counted} ({of_row})"

    rows = None
    if len(shown) <= MAX_TABLE_CLASSES + 1:
        rows = [
            (
                row_names[row],
                [
                    ConfusionCell(
                        count=int(counts[row, column]),
                        share=float(shares[row, column]),
                        text=sentence(row, column),
                        is_correct=row == column != none,
                    )
                    for column in shown
                ],
            )
            for row in shown
        ]
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    wrong[none] = 0
    if unit == "segments":  # false positives and false negatives are no confusions
        wrong[:, none] = 0
    order = np.argsort(-wrong, axis=None, kind="stable")[:NUM_LISTED]
    pairs = [divmod(int(place), none + 1) for place in order]
    largest = [sentence(row, column) for row, column in pairs if wrong[row, column]]
    columns = [column_names[column] for column in shown]
    return ConfusionView(key, label, unit, columns, rows, largest)

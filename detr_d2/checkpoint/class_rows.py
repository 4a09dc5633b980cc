"""Chooses the row of a file's class head for each class of the dataset.

Axes: K classes of the model, R rows of the file's head; the last row of both is "no object".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from detr_d2.checkpoint.checkpoint_errors import CheckpointError
from detr_d2.checkpoint.formats import shorten
from detr_d2.data.categories import PanopticClasses

# Rows of the released heads: one for each category id of COCO up to the largest, used or not
# (0 … 90 for detection, 0 … 249 for panoptic segmentation), and one for "no object".
COCO_HEADS = (92, 251)
COCO_NAMES: Mapping[int, str] = {c["id"]: c["name"] for c in COCO_CATEGORIES}


@dataclass(frozen=True)
class RowPlan:
    """The source of each of the K + 1 rows of the model's class head.

    Attributes:
        rows: for each row of the model, the file's row, or None to keep the initial values.
        reason: a short explanation for the log; empty if all rows are taken as they are.
        warning: a message for the user, or empty.
    """

    rows: Sequence[int | None]
    reason: str = ""
    warning: str = ""


@dataclass(frozen=True)
class ClassHead:
    """The class head of a file.

    Attributes:
        num_rows: R.
        names: names of the R - 1 classes, None for a row without one; None if none is known.
        has_ids: whether rows are the category ids of the training dataset, as in the reference.
    """

    num_rows: int
    names: tuple[str | None, ...] | None = None
    has_ids: bool = False

    @property
    def has_coco_ids(self) -> bool:
        """Whether rows are COCO's ids: their number fits, and most known names do."""
        if self.num_rows not in COCO_HEADS:
            return False
        agree = [
            _same(name, COCO_NAMES[i])
            for i, name in enumerate(self.names or ())
            if name is not None and i in COCO_NAMES
        ]
        return 2 * sum(agree) >= len(agree)

    @property
    def row_names(self) -> tuple[str | None, ...] | None:
        """``names``, or COCO's names if rows are COCO's ids."""
        if self.has_coco_ids:
            return tuple(COCO_NAMES.get(i) for i in range(self.num_rows - 1))
        return self.names


def plan_rows(
    head: ClassHead,
    num_classes: int,
    classes: PanopticClasses | None,
    *,
    resize: bool,
    frozen: bool,
) -> RowPlan:
    """Finds the rows for the K classes of a model.

    If rows are category ids (COCO's, or up to the dataset's largest), the rows of the dataset's ids
    are taken. A head of K + 1 rows is taken whole, in the dataset's order if both have the same
    names. Any other head is refused or, with ``resize``, matched by name.

    Args:
        head: the class head of the file.
        num_classes: K.
        classes: classes of the dataset; None if no dataset is known.
        resize: ``MODEL.DETR.RESIZE_ON_LOAD``.
        frozen: whether the detector is frozen; then classes are never matched by name.

    Raises:
        CheckpointError: the classes don't fit.
    """
    last = head.num_rows - 1
    if head.has_ids and not head.has_coco_ids and classes:
        lowest, highest = min(classes.dataset_ids), max(classes.dataset_ids)
        if lowest >= 0 and highest == last - 1:
            return _rows_of_ids(head, classes)
    if last == num_classes:
        misfit = _different_names(head, classes)
        if not misfit:
            return _in_order_of_dataset(head, classes)
        if not (resize or frozen):
            warning = f"The classes of the file and of the dataset differ: {misfit}."
            return RowPlan(list(range(head.num_rows)), warning=warning)
    elif head.has_coco_ids:
        misfit = _not_coco(head, classes)
        if classes is not None and not misfit:
            return _rows_of_ids(head, classes)
    else:
        misfit = f"the file has {last} classes, MODEL.DETR.NUM_CLASSES is {num_classes}"
    if frozen or not resize:
        raise CheckpointError(f"its classes don't fit the dataset: {misfit}. {advice(frozen)}")
    return _by_name(head, num_classes, classes)


def advice(frozen: bool) -> str:
    """Tells the user what to do if classes don't fit."""
    if frozen:
        return (
            "The detector is frozen (MODEL.DETR.FREEZE_DETECTOR, stage 'masks') and could never "
            "learn the dataset's classes: train the stage 'boxes' first."
        )
    return (
        "To start training from it nevertheless, set MODEL.DETR.RESIZE_ON_LOAD True: classes of "
        "the same name keep their rows, and the others start fresh."
    )


def _rows_of_ids(head: ClassHead, classes: PanopticClasses) -> RowPlan:
    rows = [*classes.dataset_ids, head.num_rows - 1]
    in_order = list(range(head.num_rows))
    return RowPlan(rows, "" if rows == in_order else f"by the dataset's ids, of {head.num_rows}")


def _in_order_of_dataset(head: ClassHead, classes: PanopticClasses | None) -> RowPlan:
    """Takes all rows, in the dataset's order if the names of both are known."""
    in_order = list(range(head.num_rows))
    if head.names is None or classes is None:
        return RowPlan(in_order)
    rows = _by_name(head, head.num_rows - 1, classes).rows
    if rows == in_order or len(set(rows)) < len(rows):  # some names differ only in signs
        return RowPlan(in_order)
    return RowPlan(rows, "put in the dataset's order")


def _by_name(head: ClassHead, num_classes: int, classes: PanopticClasses | None) -> RowPlan:
    """Takes the rows of the dataset's names; the other classes keep their initial values."""
    in_file = {name: i for i, name in enumerate(head.row_names or ()) if name is not None}
    # Identical names take precedence, since others may differ only in case or signs.
    row_of = {**{_plain(name): i for name, i in in_file.items()}, **in_file}
    names = [None] * num_classes if classes is None else classes.names
    rows = [None if name is None else row_of.get(name, row_of.get(_plain(name))) for name in names]
    kept = [str(name) for name, row in zip(names, rows, strict=True) if row is not None]
    fresh = [str(name) for name, row in zip(names, rows, strict=True) if row is None]
    reason = f"by name: {len(kept)} classes kept" + (f" ({shorten(kept)})" if kept else "")
    if fresh:
        reason += f", {len(fresh)} fresh" + (f" ({shorten(fresh)})" if classes else "")
    return RowPlan([*rows, head.num_rows - 1], reason)


def _different_names(head: ClassHead, classes: PanopticClasses | None) -> str:
    """Describes how the names of file and dataset differ; empty if they don't, or are unknown."""
    if head.names is None or classes is None:
        return ""
    in_file = {_plain(name): name for name in head.names if name is not None}
    in_dataset = {_plain(name): name for name in classes.names}
    only_file = [name for key, name in in_file.items() if key not in in_dataset]
    only_dataset = [name for key, name in in_dataset.items() if key not in in_file]
    if not only_dataset:
        return ""
    return (
        f"only the file has {shorten(only_file) or 'rows without a name'}; "
        f"only the dataset has {shorten(only_dataset)}"
    )


def different_classes(in_file: PanopticClasses, in_dataset: PanopticClasses) -> list[str]:
    """Describes each difference, apart from colours, between the classes of file and dataset."""
    theirs, ours = set(in_file.names), set(in_dataset.names)
    if theirs != ours:
        only_file = [name for name in in_file.names if name not in ours]
        only_dataset = [name for name in in_dataset.names if name not in theirs]
        told = zip(("file", "dataset"), (only_file, only_dataset), strict=True)
        return [f"only the {who} has {shorten(names)}" for who, names in told if names]
    dataset_has = {category["name"]: category for category in in_dataset.categories()}
    pairs = [(category, dataset_has[category["name"]]) for category in in_file.categories()]
    kinds = [
        f"{a['name']!r} is {_kind(a)} in the file and {_kind(b)} in the dataset"
        for a, b in pairs
        if a["isthing"] != b["isthing"]
    ]
    ids = [
        f"{a['name']!r} has the id {a['id']} in the file and {b['id']} in the dataset"
        for a, b in pairs
        if a["id"] != b["id"]
    ]
    phrases = [shorten(found) for found in (kinds, ids) if found]
    if in_file.names != in_dataset.names:
        orders = f"{shorten(in_file.names)} in the file, {shorten(in_dataset.names)} in the dataset"
        phrases.append(f"they are in another order: {orders}")
    return phrases


def _kind(category: dict) -> str:
    return "a thing" if category["isthing"] else "stuff"


def _not_coco(head: ClassHead, classes: PanopticClasses | None) -> str:
    """Tells why a dataset can't take rows by COCO's ids; empty if it can."""
    what = f"the file's {head.num_rows} rows are COCO's category ids"
    if classes is None:
        return f"{what}, and no dataset in DATASETS says which of them to take"
    pairs = list(zip(classes.dataset_ids, classes.names, strict=True))
    foreign = [f"{i} ({name!r})" for i, name in pairs if i not in COCO_NAMES]
    if foreign:
        return f"{what}, and {len(foreign)} of the dataset's ids are not: {shorten(foreign)}"
    renamed = [
        f"{i} ({name!r}, in COCO {COCO_NAMES[i]!r})"
        for i, name in pairs
        if not _same(name, COCO_NAMES[i])
    ]
    if renamed:
        return f"{what}, and the dataset's ids mean something else: {shorten(renamed)}"
    beyond = [f"{i} ({name!r})" for i, name in pairs if i >= head.num_rows - 1]
    if beyond:
        return f"{what} up to {head.num_rows - 2}: it has none for {shorten(beyond)}"
    return ""


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name).strip().lower()


def _same(name: str, other: str) -> bool:
    return _plain(name) == _plain(other)


def named(names: Sequence[object]) -> tuple[str | None, ...] | None:
    """Replaces placeholders such as "LABEL_3" by None; returns None if no name is left."""
    meant = tuple(
        name
        if isinstance(name, str) and not re.fullmatch(r"(LABEL_)?\d+|N/?A|", name, re.IGNORECASE)
        else None
        for name in names
    )
    return meant if any(meant) else None

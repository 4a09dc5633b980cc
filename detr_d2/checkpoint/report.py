"""What was loaded, in a line and a table."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable

from tabulate import tabulate

from detr_d2.checkpoint.fitting import Fitted

COLUMNS = ("what", "tensors", "in the file", "in the model")


def log_loaded(logger: logging.Logger, fitted: Fitted) -> None:
    """Logs one line that says what was recognised, the table, and warnings."""
    logger.info(
        "Loaded %s, recognised as %s\n%s",
        fitted.checkpoint.origin,
        fitted.checkpoint.title,
        loading_table(fitted),
    )
    for warning in fitted.warnings:
        logger.warning("%s: %s", fitted.checkpoint.origin, warning)


def loading_table(fitted: Fitted) -> str:
    """What was renamed, split, resized, left at its initial value or ignored, by module."""
    source = fitted.checkpoint.named.source
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in fitted.weights:
        groups[_action(fitted, name), _module(name)].append(name)
    rows = []
    for (action, _), names in groups.items():
        in_file = list(dict.fromkeys(source[name] for name in names))
        rows.append((action, len(names), _common(in_file), _common(names)))
    initial: dict[str, list[str]] = defaultdict(list)
    for name in fitted.initial:
        initial[_module(name)].append(name)
    rows += [("initial value", len(names), "", _common(names)) for names in initial.values()]
    ignored: dict[str, list[str]] = defaultdict(list)
    for name in fitted.ignored:
        is_counter = name.endswith("num_batches_tracked")
        ignored["counters" if is_counter else name.split(".")[0]].append(name)
    rows += [("ignored", len(names), _common(names), "") for names in ignored.values()]
    return tabulate(rows, headers=COLUMNS, tablefmt="pipe")


def tensor_table(fitted: Fitted) -> str:
    """The same, tensor by tensor, with shapes."""
    source, in_file = fitted.checkpoint.named.source, fitted.checkpoint.named.weights
    rows = [
        (_action(fitted, name), source[name], f"{name} {_shapes(in_file[name], tensor)}")
        for name, tensor in fitted.weights.items()
    ]
    rows += [("initial value", "", name) for name in fitted.initial]
    rows += [("ignored", name, "") for name in fitted.ignored]
    return tabulate(rows, headers=("what", *COLUMNS[2:]), tablefmt="pipe")


def _action(fitted: Fitted, name: str) -> str:
    source = fitted.checkpoint.named.source[name]
    if name in fitted.resized:
        return f"rows {fitted.resized[name]}"
    if ".in_proj_" in source:
        return "split"
    return "as it is" if source == name else "renamed"


def _module(name: str) -> str:
    """The part of the model that a tensor belongs to, e.g. detector.backbone."""
    parts = name.split(".")
    has_parts = parts[0] == "detector" or "attention_map" in parts[1:2]
    return ".".join(parts[: 2 if has_parts else 1])


def _common(names: Iterable[str]) -> str:
    """What several names have in common at their beginning, e.g. detector.backbone.*"""
    names = list(names)
    if len(names) == 1:
        return names[0]
    common = os.path.commonprefix(names).rpartition(".")[0]
    return f"{common}.*" if common else f"{names[0]}, …"


def _shapes(in_file, loaded) -> str:
    shapes = ["×".join(map(str, tensor.shape)) for tensor in (in_file, loaded)]
    return shapes[1] if shapes[0] == shapes[1] else f"{shapes[0]} → {shapes[1]}"

"""Reports what was loaded, in a line and a table."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from tabulate import tabulate

from detr_d2.checkpoint.fitting import Fitted
from detr_d2.checkpoint.formats import is_counter

COLUMNS = ("what", "tensors", "in the file", "in the model")


def log_loaded(logger: logging.Logger, fitted: Fitted) -> None:
    """Logs the recognised format, the table, and warnings."""
    logger.info(
        "Loaded %s, recognised as %s\n%s",
        fitted.checkpoint.origin,
        fitted.checkpoint.title,
        loading_table(fitted),
    )
    for warning in fitted.warnings:
        logger.warning("%s: %s", fitted.checkpoint.origin, warning)


def loading_table(fitted: Fitted) -> str:
    """Lists, by module, which tensors were renamed, split, resized, not loaded or ignored."""
    source = fitted.checkpoint.named.source
    rows = []
    for names in _grouped(fitted.weights, lambda name: (_action(fitted, name), _module(name))):
        in_file = list(dict.fromkeys(source[name] for name in names))
        rows.append((_action(fitted, names[0]), len(names), _common(in_file), _common(names)))
    for names in _grouped(fitted.initial, _module):
        rows.append(("initial value", len(names), "", _common(names)))
    for names in _grouped(fitted.ignored, lambda n: is_counter(n) or n.split(".")[0]):
        rows.append(("ignored", len(names), _common(names), ""))
    return tabulate(rows, headers=COLUMNS, tablefmt="pipe")


def tensor_table(fitted: Fitted) -> str:
    """Lists the same for each tensor, with shapes."""
    source, in_file = fitted.checkpoint.named.source, fitted.checkpoint.named.weights
    rows = [
        (_action(fitted, name), source[name], f"{name} {_shapes(in_file[name], tensor)}")
        for name, tensor in fitted.weights.items()
    ]
    rows += [("initial value", "", name) for name in fitted.initial]
    rows += [("ignored", name, "") for name in fitted.ignored]
    return tabulate(rows, headers=("what", *COLUMNS[2:]), tablefmt="pipe")


def _grouped(names: Iterable[str], key: Callable[[str], object]) -> list[list[str]]:
    """Groups names by a key, in the order of the first name of each group."""
    groups: dict[object, list[str]] = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return list(groups.values())


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
    """Returns the common beginning of several names, e.g. detector.backbone.*"""
    names = list(names)
    if len(names) == 1:
        return names[0]
    common = os.path.commonprefix(names).rpartition(".")[0]
    return f"{common}.*" if common else f"{names[0]}, …"


def _shapes(in_file: torch.Tensor, loaded: torch.Tensor) -> str:
    shapes = ["×".join(map(str, tensor.shape)) for tensor in (in_file, loaded)]
    return shapes[1] if shapes[0] == shapes[1] else f"{shapes[0]} → {shapes[1]}"

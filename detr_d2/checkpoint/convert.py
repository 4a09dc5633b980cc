"""Converts a checkpoint of any kind to this project's format."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from detr_d2.checkpoint.checkpoint import DESCRIPTION, describe, read_checkpoint
from detr_d2.checkpoint.checkpoint_errors import CheckpointError, brief
from detr_d2.checkpoint.class_rows import plan_rows
from detr_d2.checkpoint.fitting import Fitted
from detr_d2.checkpoint.loading_report import loading_table, tensor_table
from detr_d2.checkpoint.parameter_names import CLASS_HEAD
from detr_d2.data.categories import PanopticClasses, classes_of


def convert_file(
    source: str, output: str | Path, dataset_name: str | None = None, every_tensor: bool = False
) -> str:
    """Reads a checkpoint and writes its model under this project's names.

    Args:
        source: path or URL, see ``read_checkpoint``.
        output: a ``.pth`` file; written completely or not at all.
        dataset_name: a dataset. A class head whose rows are COCO's ids keeps only the rows of its
            classes. None: all rows are kept.
        every_tensor: whether the table has a line for each tensor, and not for each module.

    Returns:
        The recognised format, and a table of what was done with the tensors.

    Raises:
        FileExistsError: output already exists.
        CheckpointError: source can't be read, or its classes aren't the dataset's.
        ValueError: output has another suffix, or the dataset has no classes.
    """
    output = Path(output)
    if output.suffix != ".pth":
        raise ValueError(f"{output}: the name of a checkpoint has to end in .pth.")
    if output.exists():
        raise FileExistsError(f"{output} is there already; it is left as it is.")
    classes = None if dataset_name is None else classes_of(dataset_name)
    if dataset_name is not None and classes is None:
        raise ValueError(f"No classes are known for a dataset {dataset_name!r}.")
    checkpoint = read_checkpoint(source)
    fitted = Fitted.unchanged(checkpoint)
    description = describe(classes or checkpoint.classes, checkpoint.settings)
    if classes is not None:
        _cut_to(fitted, classes)
    elif checkpoint.classes is None:
        description["class_names"] = list(checkpoint.class_names or ())
        description["has_ids"] = checkpoint.has_ids
    _write(output, {"model": fitted.weights, DESCRIPTION: description})
    table = tensor_table(fitted) if every_tensor else loading_table(fitted)
    return f"{source}: {checkpoint.title}\n{table}"


def _cut_to(fitted: Fitted, classes: PanopticClasses) -> None:
    checkpoint = fitted.checkpoint
    if checkpoint.class_head is None:
        raise CheckpointError(f"{checkpoint.origin} has no class head that could be cut.")
    try:
        plan = plan_rows(
            checkpoint.class_head, len(classes.names), classes, resize=False, frozen=False
        )
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.origin}: {error}") from None
    if plan.warning:
        raise CheckpointError(f"{checkpoint.origin}: {plan.warning}")
    for name in (f"{CLASS_HEAD}weight", f"{CLASS_HEAD}bias"):
        fitted.weights[name] = fitted.weights[name][plan.rows]
        if plan.reason:
            fitted.resized[name] = plan.reason


def _write(path: Path, content: dict) -> None:
    """Saves under another name first, so that the file is never half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # torch would save the whole tensor behind a view.
    content["model"] = {name: tensor.clone() for name, tensor in content["model"].items()}
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        torch.save(content, unfinished)
        os.replace(unfinished, path)
    except RuntimeError as error:  # torch raises it if the disk is full
        raise OSError(f"{path} can't be written: {brief(error)}") from error
    finally:
        unfinished.unlink(missing_ok=True)

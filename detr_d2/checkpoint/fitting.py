"""Fits all tensors of a checkpoint to a model, or raises an error that says why not.

Axes: K classes of the model, Q queries of the model, D its width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from detr_d2.checkpoint.checkpoint import Checkpoint
from detr_d2.checkpoint.checkpoint_errors import CheckpointError, brief
from detr_d2.checkpoint.class_rows import advice, different_classes, plan_rows
from detr_d2.checkpoint.formats import is_counter, shorten
from detr_d2.checkpoint.model_settings import OF_MASK_HEADS, ModelSettings, different_settings
from detr_d2.checkpoint.parameter_names import BACKBONE, CLASS_HEAD, MASK_HEAD, QUERIES
from detr_d2.checkpoint.pretrained_backbone import PretrainedNames
from detr_d2.data.categories import PanopticClasses

WITHOUT_CLASS_HEAD = (
    "Nothing can be predicted without it, but training can start from the rest: with "
    "MODEL.DETR.RESIZE_ON_LOAD True the class head starts fresh."
)


@dataclass(frozen=True)
class LoadingRules:
    """What the model requires of a checkpoint.

    Attributes:
        classes: classes of the dataset; None if no dataset is known.
        settings: settings of the model.
        resize: ``MODEL.DETR.RESIZE_ON_LOAD``: whether classes, queries and settings may differ
            if the model is trained after loading.
        frozen: whether the detector is frozen.
        pretrained: names in files of pretrained weights of the backbone, where they aren't those
            that all checkpoints have, see ``formats``.
    """

    classes: PanopticClasses | None
    settings: ModelSettings
    resize: bool = False
    frozen: bool = False
    pretrained: PretrainedNames | None = None


@dataclass
class Fitted:
    """The tensors to load, and how they were fitted.

    Attributes:
        checkpoint: the source of the tensors.
        weights: own name → tensor of the model's shape.
        resized: own name → how its rows were chosen.
        initial: names that keep the model's initial values.
        ignored: names, in the file, of tensors that the model doesn't use.
        warnings: messages for the user.
    """

    checkpoint: Checkpoint
    weights: dict[str, torch.Tensor]
    resized: dict[str, str] = field(default_factory=dict)
    initial: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def unchanged(cls, checkpoint: Checkpoint) -> Fitted:
        """Takes all tensors of a checkpoint without changes."""
        named = checkpoint.named
        return cls(checkpoint, dict(named.weights), ignored=list(named.ignored))


def fit(
    checkpoint: Checkpoint,
    model: Mapping[str, torch.Tensor],
    rules: LoadingRules,
    *,
    to_train: bool,
) -> Fitted:
    """Fits a checkpoint to a model.

    A model without masks ignores a mask head. If the model is trained after loading, the file may
    lack the mask head or, with ``resize``, hold another one. If nothing is frozen, it may also hold
    only a backbone or, with ``resize``, lack the class head. Missing parts keep their initial
    values.

    Args:
        checkpoint: a checkpoint of any kind.
        model: the state dict of the model.
        rules: what the model requires.
        to_train: whether the model is trained after loading.

    Raises:
        CheckpointError: the file doesn't fit; the message lists all problems.
    """
    fitted = Fitted.unchanged(checkpoint)
    _leave_out_unused(fitted, model)
    rules = replace(rules, resize=rules.resize and to_train)
    misfits = {
        CLASS_HEAD: _choose_class_rows(fitted, model, rules),
        QUERIES: _choose_queries(fitted, model, rules),
    }
    problems = [
        *_leave_out_other_head(fitted, model, rules, to_train),
        *_check_settings(fitted, rules),
        *misfits[CLASS_HEAD],
        *misfits[QUERIES],
        *_check_names(fitted, model, rules, to_train),
        *_check_tensors(fitted, model, tuple(name for name, told in misfits.items() if told)),
    ]
    if problems:
        raise CheckpointError(
            f"{checkpoint.origin} doesn't fit the model that the config describes. Recognised as "
            f"{checkpoint.title}:\n  " + "\n  ".join(problems)
        )
    return fitted


def _leave_out_unused(fitted: Fitted, model: Mapping[str, torch.Tensor]) -> None:
    """Leaves out mask heads and batch counters that the model doesn't have."""
    model_has_masks = any(name.startswith(MASK_HEAD) for name in model)
    for name in list(fitted.weights):
        unused_mask = name.startswith(MASK_HEAD) and not model_has_masks
        if unused_mask or (is_counter(name) and name not in model):
            del fitted.weights[name]
            fitted.ignored.append(fitted.checkpoint.named.source[name])


def _leave_out_other_head(
    fitted: Fitted, model: Mapping[str, torch.Tensor], rules: LoadingRules, to_train: bool
) -> list[str]:
    """Leaves out a mask head of another kind than the model's, which then is fresh or a problem."""
    theirs, ours = fitted.checkpoint.mask_head, rules.settings.mask_head
    names = [name for name in fitted.weights if name.startswith(MASK_HEAD)]
    if not names or None in (theirs, ours) or theirs == ours:
        return []
    for name in names:
        del fitted.weights[name]
        fitted.ignored.append(fitted.checkpoint.named.source[name])
    if rules.resize:
        fitted.warnings.append(f"Its {theirs} is left out: the model's {ours} starts fresh.")
        return []
    problem = f"its mask head is {brief(theirs)}, the model's is {ours}. "
    problem += f"Set MODEL.DETR.MASK_HEAD.NAME {brief(theirs)}"
    if to_train:
        problem += ", or MODEL.DETR.RESIZE_ON_LOAD True to train a fresh mask head"
    return [f"{problem}."]


def _check_settings(fitted: Fitted, rules: LoadingRules) -> list[str]:
    has_mask_head = any(name.startswith(MASK_HEAD) for name in fitted.weights)
    differences = different_settings(fitted.checkpoint.settings, rules.settings, has_mask_head)
    are_fixed = rules.frozen and bool(differences.keys() - set(OF_MASK_HEADS))
    are_fixed |= "backbone" in differences
    if differences and (are_fixed or not rules.resize):
        advice = "Set the keys accordingly"
        if not are_fixed:
            advice += ", or MODEL.DETR.RESIZE_ON_LOAD True to train from it nevertheless"
        told = "; ".join(differences.values())
        return [f"it was made with other settings: {told}. {advice}."]
    fitted.warnings += [f"Other settings: {phrase}." for phrase in differences.values()]
    return []


def _choose_class_rows(
    fitted: Fitted, model: Mapping[str, torch.Tensor], rules: LoadingRules
) -> list[str]:
    num_classes = len(model[f"{CLASS_HEAD}bias"]) - 1
    head, classes = fitted.checkpoint.class_head, fitted.checkpoint.classes
    if head is None:
        return []  # the checks that follow report this, unless it may be missing
    starts_anew = rules.resize and not rules.frozen
    if classes and rules.classes and len(classes.names) == num_classes and not starts_anew:
        differences = different_classes(classes, rules.classes)
        if differences:
            misfit = "; ".join(differences)
            return [f"its classes don't fit the dataset: {misfit}. {advice(rules.frozen)}"]
    try:
        plan = plan_rows(head, num_classes, rules.classes, resize=rules.resize, frozen=rules.frozen)
    except CheckpointError as error:
        return [str(error)]
    if plan.warning:
        fitted.warnings.append(plan.warning)
    if plan.reason:
        _take_rows(fitted, model, f"{CLASS_HEAD}weight", plan.rows, plan.reason)
        _take_rows(fitted, model, f"{CLASS_HEAD}bias", plan.rows, plan.reason)
    return []


def _choose_queries(
    fitted: Fitted, model: Mapping[str, torch.Tensor], rules: LoadingRules
) -> list[str]:
    if QUERIES not in fitted.weights:
        return []
    in_file, in_model = len(fitted.weights[QUERIES]), len(model[QUERIES])
    if in_file == in_model:
        return []
    differ = f"it has {in_file} queries, MODEL.DETR.NUM_QUERIES is {in_model}"
    if rules.frozen:
        return [f"{differ}. A frozen detector keeps its queries: set {in_file}."]
    what = "keep the first of them" if in_model < in_file else "add new ones"
    if not rules.resize:
        return [f"{differ}. Set {in_file}, or MODEL.DETR.RESIZE_ON_LOAD True to {what}."]
    rows = [row if row < in_file else None for row in range(in_model)]
    reason = "the first" if in_model < in_file else f"{in_model - in_file} added"
    _take_rows(fitted, model, QUERIES, rows, f"{reason}, of {in_file}")
    return []


def _take_rows(
    fitted: Fitted,
    model: Mapping[str, torch.Tensor],
    name: str,
    rows: Sequence[int | None],
    reason: str,
) -> None:
    """Takes rows of a tensor; None is a row that keeps the model's initial values."""
    in_file, result = fitted.weights[name], model[name].clone()
    if in_file.shape[1:] != result.shape[1:]:
        return  # the checks that follow report this
    kept = [i for i, row in enumerate(rows) if row is not None]
    result[kept] = in_file[[rows[i] for i in kept]].to(result)
    fitted.weights[name] = result
    fitted.resized[name] = reason


def _check_names(
    fitted: Fitted, model: Mapping[str, torch.Tensor], rules: LoadingRules, to_train: bool
) -> list[str]:
    checkpoint = fitted.checkpoint
    has_class_head = any(name.startswith(CLASS_HEAD) for name in fitted.weights)
    has_mask_head = any(name.startswith(MASK_HEAD) for name in fitted.weights)
    if checkpoint.is_backbone and (rules.frozen or not to_train):
        return ["it is a backbone to train from, and not a trained detector"]

    def may_be_missing(name: str) -> bool:
        if is_counter(name):
            return True
        if name.startswith(MASK_HEAD) and (to_train or checkpoint.has_mask_head):
            return not has_mask_head  # another head that was left out has been reported
        if rules.resize and not rules.frozen and name.startswith(CLASS_HEAD):
            return not has_class_head
        if not checkpoint.is_backbone:
            return False
        in_no_file = rules.pretrained is not None and name not in rules.pretrained.own.values()
        return in_no_file or not name.startswith(BACKBONE)

    missing = [name for name in model if name not in fitted.weights]
    fitted.initial = [name for name in missing if may_be_missing(name)]
    missing = [name for name in missing if not may_be_missing(name)]
    left_over = [checkpoint.named.source[name] for name in fitted.weights if name not in model]
    head = [] if has_class_head else [name for name in missing if name.startswith(CLASS_HEAD)]
    missing = [name for name in missing if name not in head]
    problems = []
    if head:
        what_to_do = advice(rules.frozen) if rules.frozen else WITHOUT_CLASS_HEAD
        problems.append(
            f"missing in the file: {shorten(head)}, all of the class head. {what_to_do}"
        )
    if missing:
        problems.append(f"missing in the file: {shorten(missing)}")
    if left_over:
        problems.append(f"in the file, but not in the model: {shorten(left_over)}")
    return problems


def _check_tensors(
    fitted: Fitted, model: Mapping[str, torch.Tensor], rows_are_told: tuple[str, ...]
) -> list[str]:
    """Checks shapes and values, apart from numbers of rows that are already reported."""
    problems = []
    for name, tensor in fitted.weights.items():
        if name not in model:
            continue
        first = 1 if name.startswith(rows_are_told) else 0
        in_file, in_model = tuple(tensor.shape), tuple(model[name].shape)
        if in_file[first:] != in_model[first:]:
            problems.append(f"{name}: {in_file} in the file, {in_model} in the model")
        if not tensor.to(model[name].dtype).isfinite().all():  # a wider type may overflow
            problems.append(f"{name}: NaN or infinite in the file")
    return problems

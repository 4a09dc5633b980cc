"""Makes a model accept state dicts of any DETR, from any loader."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn

from detr_d2.checkpoint.checkpoint import Checkpoint, from_content
from detr_d2.checkpoint.checkpoint_errors import CheckpointError
from detr_d2.checkpoint.fitting import LoadingRules, fit
from detr_d2.checkpoint.formats import OWN, recognise, shorten
from detr_d2.checkpoint.loading_report import log_loaded
from detr_d2.checkpoint.parameter_names import BACKBONE, MASK_HEAD
from detr_d2.checkpoint.wrappers import plain_name, unwrap

logger = logging.getLogger(__name__)


def take_any_detr(model: nn.Module, rules: LoadingRules) -> None:
    """Makes ``load_state_dict`` of a model accept the reference's and Hugging Face's names, too.

    Thereby Detectron2's ``DefaultPredictor`` and ``DetectionCheckpointer`` load released weights.
    Names of this project load as in every module. Other names, and names with the prefix of a
    wrapper, are converted, and have to fit completely.

    Args:
        model: a DETR; gets the attribute ``loading_rules``.
        rules: what the model requires of a checkpoint.
    """
    model.loading_rules = rules  # type: ignore[assignment]  # PyTorch's types allow tensors only
    model.register_load_state_dict_pre_hook(_convert)


def load_checkpoint(model: nn.Module, checkpoint: Checkpoint, *, to_train: bool) -> None:
    """Loads a checkpoint of any kind by a model's ``loading_rules``, and logs the result.

    Args:
        model: a model that ``take_any_detr`` has prepared.
        checkpoint: a checkpoint of any kind.
        to_train: see ``fit``.

    Raises:
        CheckpointError: the checkpoint doesn't fit.
    """
    model.load_state_dict(_fitted(model, checkpoint, to_train=to_train))


def _fitted(model: nn.Module, checkpoint: Checkpoint, *, to_train: bool) -> dict[str, torch.Tensor]:
    """Fits a checkpoint to the model's state dict, and logs the result."""
    state = model.state_dict(keep_vars=True)
    own = {plain_name(name): name for name in state}  # names of compiled parts have wrappers
    plain = {short: state[name].detach() for short, name in own.items()}
    fitted = fit(checkpoint, plain, cast(LoadingRules, model.loading_rules), to_train=to_train)
    log_loaded(logger, fitted)
    # Tensors that keep their initial values are loaded into themselves, so that none is missing.
    return state | {own[short]: tensor for short, tensor in fitted.weights.items()}


def _convert(model: nn.Module, state_dict: dict[str, Any], prefix: str, *_others: object) -> None:
    """PyTorch's hook: converts a state dict in place before it is loaded.

    Raises:
        CheckpointError: converted tensors don't fit, the mask head is another, or no tensor belongs
            to the model.
    """
    own = model.state_dict().keys()
    if prefix or state_dict.keys() <= own:  # names of compiled parts have wrappers, too
        return
    pretrained = cast(LoadingRules, model.loading_rules).pretrained
    unwrapped = unwrap(state_dict, lambda names: recognise(names) is not None)
    converted = unwrapped.taken_off or recognise(state_dict) not in (None, OWN)
    converted = converted or (pretrained is not None and pretrained.are_in(state_dict))
    if converted or any(_has_other(part, own, state_dict) for part in (BACKBONE, MASK_HEAD)):
        checkpoint = from_content({"model": dict(state_dict)}, "state dict", pretrained)
        fitted = _fitted(model, checkpoint, to_train=model.training)
        state_dict.clear()
        state_dict.update(fitted)
    elif own.isdisjoint(state_dict):
        # Loaders that aren't strict would continue with initial values alone.
        raise CheckpointError(
            f"No tensor belongs to a DETR: {shorten(state_dict)}. See docs/weights.md for "
            "the kinds of checkpoints that can be loaded."
        )


def _has_other(part: str, own: Iterable[str], state_dict: Iterable[str]) -> bool:
    """Whether a model and a file both have a part, each with tensors that the other's lacks.

    Loaders that aren't strict would continue with a part of initial values.
    """
    ours, theirs = (
        {plain_name(name) for name in names if name.startswith(part)} for names in (own, state_dict)
    )
    return bool(ours - theirs) and bool(theirs - ours)

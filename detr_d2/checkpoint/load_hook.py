"""Makes a model take state dicts of any DETR, also from loaders that know nothing of them."""

from __future__ import annotations

import logging
from typing import Any, cast

import torch
from torch import nn

from detr_d2.checkpoint.checkpoint import Checkpoint, from_content
from detr_d2.checkpoint.checkpoint_errors import CheckpointError
from detr_d2.checkpoint.fitting import LoadingRules, fit
from detr_d2.checkpoint.formats import OWN, recognise, shorten
from detr_d2.checkpoint.loading_report import log_loaded
from detr_d2.checkpoint.wrappers import plain_name, unwrap

logger = logging.getLogger(__name__)


def take_any_detr(model: nn.Module, rules: LoadingRules) -> None:
    """Makes ``load_state_dict`` of a model take the reference's and Hugging Face's names as well.

    So Detectron2's ``DefaultPredictor`` and ``DetectionCheckpointer`` load released weights. Names
    of this project load as those of every module. Others are converted, and have to fit completely;
    others are also those that a wrapper put prefixes before.

    Args:
        model: a DETR under the names used here; gets the attribute ``loading_rules``.
        rules: what the model wants of checkpoints.
    """
    model.loading_rules = rules  # type: ignore[assignment]  # PyTorch's types know tensors alone
    model.register_load_state_dict_pre_hook(_convert)


def load_checkpoint(model: nn.Module, checkpoint: Checkpoint, *, to_train: bool) -> None:
    """Loads a checkpoint of any kind by a model's ``loading_rules``, and logs what became of it.

    Args:
        model: that ``take_any_detr`` was called with.
        checkpoint: of any kind.
        to_train: see ``fit``.

    Raises:
        CheckpointError: it doesn't fit.
    """
    model.load_state_dict(_fitted(model, checkpoint, to_train=to_train))


def _fitted(model: nn.Module, checkpoint: Checkpoint, *, to_train: bool) -> dict[str, torch.Tensor]:
    """What a checkpoint makes of the model's state dict; logs it."""
    state = model.state_dict(keep_vars=True)
    own = {plain_name(name): name for name in state}  # compiled parts have wrappers
    plain = {short: state[name].detach() for short, name in own.items()}
    fitted = fit(checkpoint, plain, cast(LoadingRules, model.loading_rules), to_train=to_train)
    log_loaded(logger, fitted)
    # What keeps its initial value is loaded into itself, so that nothing is missing.
    return state | {own[short]: tensor for short, tensor in fitted.weights.items()}


def _convert(model: nn.Module, state_dict: dict[str, Any], prefix: str, *_others: object) -> None:
    """PyTorch's hook: before a state dict is loaded, puts what it makes of the model in its place.

    Raises:
        CheckpointError: the tensors of another kind don't fit, or none at all is of this model.
    """
    own = model.state_dict().keys()
    if prefix or state_dict.keys() <= own:  # compiled parts have wrappers in names of their own
        return
    unwrapped = unwrap(state_dict, lambda names: recognise(names) is not None)
    if unwrapped.taken_off or recognise(state_dict) not in (None, OWN):
        checkpoint = from_content({"model": dict(state_dict)}, "state dict")
        converted = _fitted(model, checkpoint, to_train=model.training)
        state_dict.clear()
        state_dict.update(converted)
    elif own.isdisjoint(state_dict):
        # Loaders that aren't strict would go on with nothing but initial values.
        raise CheckpointError(
            f"No tensor is one of a DETR's: {shorten(state_dict)}. See the README for the "
            "kinds of checkpoints that can be loaded."
        )

"""Makes a model take state dicts of any DETR, also from loaders that know nothing of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from detr_d2.checkpoint.checkpoint import Checkpoint, from_content
from detr_d2.checkpoint.checkpoint_errors import CheckpointError
from detr_d2.checkpoint.fitting import LoadingRules, fit
from detr_d2.checkpoint.formats import OWN, recognise, shorten
from detr_d2.checkpoint.loading_report import log_loaded
from detr_d2.checkpoint.wrappers import plain_name, unwrap

logger = logging.getLogger(__name__)


class TakesAnyDETR(nn.Module):
    """A model whose ``load_state_dict`` takes the reference's and Hugging Face's names as well.

    So Detectron2's ``DefaultPredictor`` and ``DetectionCheckpointer`` load released weights.
    Subclasses set ``loading_rules``.
    """

    loading_rules: LoadingRules

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As every module's for names of this project; others are converted, and always strictly.

        Others are also those that a wrapper put prefixes before.

        Raises:
            CheckpointError: the tensors of another kind don't fit, or none at all is of this model.
        """
        own = self.state_dict().keys()
        if state_dict.keys() <= own:  # compiled parts have wrappers in names of their own
            return super().load_state_dict(state_dict, strict, assign)
        unwrapped = unwrap(state_dict, lambda names: recognise(names) is not None)
        if unwrapped.taken_off or recognise(state_dict) not in (None, OWN):
            checkpoint = from_content({"model": state_dict}, "state dict")
            return self.load_checkpoint(checkpoint, to_train=self.training, assign=assign)
        if own.isdisjoint(state_dict):
            # Loaders that aren't strict would go on with nothing but initial values.
            raise CheckpointError(
                f"No tensor is one of a DETR's: {shorten(state_dict)}. See the README for the "
                "kinds of checkpoints that can be loaded."
            )
        return super().load_state_dict(state_dict, strict, assign)

    def load_checkpoint(
        self, checkpoint: Checkpoint, *, to_train: bool, assign: bool = False
    ) -> Any:
        """Loads a checkpoint of any kind by ``loading_rules``, and logs what became of it.

        Args:
            checkpoint: of any kind.
            to_train: see ``fit``.
            assign: as of ``load_state_dict``, which also says what is returned.

        Raises:
            CheckpointError: it doesn't fit.
        """
        state = self.state_dict()
        own = {plain_name(name): name for name in state}  # compiled parts have wrappers
        plain = {short: state[name] for short, name in own.items()}
        fitted = fit(checkpoint, plain, self.loading_rules, to_train=to_train)
        weights = {own[short]: tensor for short, tensor in fitted.weights.items()}
        loaded = super().load_state_dict(weights, strict=False, assign=assign)
        log_loaded(logger, fitted)
        return loaded

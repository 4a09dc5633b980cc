"""The optimizer, with a lower learning rate for the backbone and clipping over the whole model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Set
from typing import Any, TypeVar

import torch
from detectron2.config import CfgNode
from detectron2.solver import get_default_optimizer_params
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from detr_d2.checkpoint.parameter_names import BACKBONE

AnyOptimizer = TypeVar("AnyOptimizer", bound=Optimizer)


def build_optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """Builds ``SOLVER.OPTIMIZER`` over the trainable parameters.

    The learning rate of the backbone is ``BASE_LR · BACKBONE_MULTIPLIER``. It is multiplied by
    ``BACKBONE_LAYER_DECAY`` once for each later layer, if the backbone has ``layer_depths``, as
    timm's do. Parameters that timm exempts from weight decay, such as position embeddings, have
    none. With ``CLIP_GRADIENTS.CLIP_TYPE: "full_model"``, gradients are clipped by their norm over
    the whole model, as in the DETR reference. Other types are Detectron2's.
    """
    multiplier, decay = cfg.SOLVER.BACKBONE_MULTIPLIER, cfg.SOLVER.BACKBONE_LAYER_DECAY
    backbone = dict(model.named_modules()).get(BACKBONE.rstrip("."))
    depths: Mapping[str, int] = getattr(backbone, "layer_depths", {})
    exempt: Set[str] = getattr(backbone, "without_weight_decay", set())
    if decay != 1 and not depths:
        raise ValueError(
            f"SOLVER.BACKBONE_LAYER_DECAY is {decay}, but must be 1: only backbones of timm have "
            "numbered layers, and this one is of another kind or has none."
        )

    def lr_factor(name: str) -> float:
        if not name.startswith(BACKBONE):
            return 1.0
        return multiplier * decay ** depths.get(name.removeprefix(BACKBONE), 0)

    parameters = get_default_optimizer_params(
        model,
        base_lr=cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
        lr_factor_func=lr_factor,
        overrides={name: {"weight_decay": 0.0} for name in exempt},
    )
    # A fused step is the fastest. Under AMP it would unscale gradients itself, after clipping.
    speed = {"foreach": True} if cfg.SOLVER.AMP.ENABLED else {"fused": True}
    kinds: dict[str, tuple[type[AdamW] | type[SGD], dict[str, Any]]] = {
        "ADAMW": (AdamW, speed),
        "SGD": (SGD, {"momentum": cfg.SOLVER.MOMENTUM, **speed}),
    }
    optimizer_class, options = kinds[cfg.SOLVER.OPTIMIZER]
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if clip.ENABLED and clip.CLIP_TYPE == "full_model":
        optimizer_class = _with_full_model_clipping(
            optimizer_class, clip.CLIP_VALUE, clip.NORM_TYPE
        )
    else:
        optimizer_class = maybe_add_gradient_clipping(cfg, optimizer_class)
    return optimizer_class(parameters, lr=cfg.SOLVER.BASE_LR, **options)


class _FullModelClipping(Optimizer):
    """The base that comes before an optimizer's class: ``step`` first clips all gradients together.

    Clipping has to be part of ``step``, because AMP unscales gradients just before it. Gradients
    that aren't finite raise ``FloatingPointError`` before any weight changes.

    Attributes:
        max_norm: of the gradients of the whole model.
        norm_type: the order of the norm.
    """

    max_norm: float
    norm_type: float

    def step(self, closure=None):
        parameters = itertools.chain.from_iterable(g["params"] for g in self.param_groups)
        norm = torch.nn.utils.clip_grad_norm_(
            parameters, self.max_norm, self.norm_type, foreach=True
        )
        if not norm.isfinite():  # Clipping by this norm would make every weight NaN.
            raise FloatingPointError(f"The norm of all gradients is {norm}.")
        return super().step(closure)


def _with_full_model_clipping(
    optimizer_class: type[AnyOptimizer], max_norm: float, norm_type: float
) -> type[AnyOptimizer]:
    """A subclass of an optimizer whose ``step`` first clips all gradients together."""
    name = optimizer_class.__name__ + "WithFullModelClipping"
    limits = {"max_norm": max_norm, "norm_type": norm_type}
    return type(name, (_FullModelClipping, optimizer_class), limits)

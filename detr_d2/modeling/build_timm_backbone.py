"""Builds a model of timm as the backbone, as the keys of ``MODEL.TIMM`` say."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.utils.logger import log_first_n

from detr_d2.config_checks import PART_CHECKS, PART_RESOLVERS, require, require_one_of
from detr_d2.extras import require_extra
from detr_d2.modeling.timm_backbone import NORMS, TimmBackbone
from detr_d2.modeling.timm_stages import TimmStages
from detr_d2.modeling.timm_vit import TimmViT

NAME = "build_timm_backbone"
# Arguments of timm's models that make them take images of any size, and what they default to.
ANY_SIZE = {"dynamic_img_size": True, "strict_img_size": False}


def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """Builds ``MODEL.TIMM.NAME`` with random weights, frozen as ``MODEL.BACKBONE.FREEZE_AT`` says.

    Models with stages of strides 4, 8, 16 and 32 give these as res2 to res5, see ``TimmStages``;
    plain vision transformers get a simple feature pyramid, see ``TimmViT``.

    Raises:
        ImportError: timm is missing.
        ValueError: timm has no such model, or it doesn't serve as a backbone.
    """
    name, stride = cfg.MODEL.TIMM.NAME, cfg.MODEL.TIMM.OUTPUT_STRIDE
    whole = look_at(name)
    model = create_model(name, type(whole), stride, cfg.MODEL.TIMM.DROP_PATH)
    architecture = name.partition(".")[0]
    strides = [feature["reduction"] for feature in model.feature_info]
    freezing = (cfg.MODEL.BACKBONE.FREEZE_AT, cfg.MODEL.TIMM.NORM)
    backbone: TimmBackbone
    if len(set(strides)) == 1:
        backbone = TimmViT(architecture, model, cfg.MODEL.TIMM.PYRAMID_WIDTH, *freezing)
    else:
        indices = choose_features(architecture, strides, stride)
        backbone = TimmStages(architecture, model, indices, *freezing)
    backbone.names_of_whole = list(whole.state_dict())
    return backbone


def look_at(name: str) -> Any:
    """Builds a whole model of timm whose tensors have shapes, but no values.

    Raises:
        ImportError: timm is missing.
        ValueError: timm has no such model, or it gives no features.
    """
    require_extra("timm", f"MODEL.TIMM.NAME {name!r} needs", ["timm"])
    import timm

    try:
        with torch.device("meta"):
            whole = timm.create_model(name)
    except (RuntimeError, ValueError) as error:  # what timm raises for unknown names and tags
        similar = difflib.get_close_matches(name, timm.list_models(include_tags="." in name), 5)
        raise ValueError(
            f"MODEL.TIMM.NAME: timm {timm.__version__} has no model {name!r}: {error}."
            + (f" Similar names: {', '.join(similar)}." if similar else "")
        ) from None
    if not hasattr(whole, "forward_intermediates") or not hasattr(whole, "feature_info"):
        raise ValueError(f"MODEL.TIMM.NAME: timm's {name} gives no features, but only classes.")
    return whole


def create_model(name: str, kind: type, output_stride: int, drop_path: float) -> Any:
    """A model of timm with random weights, without a classifier, for images of any size if it can.

    Raises:
        ValueError: timm can't make it so.
    """
    import timm

    accepted = inspect.signature(kind).parameters
    options: dict[str, Any] = {k: value for k, value in ANY_SIZE.items() if k in accepted}
    wanted: dict[str, Any] = {}
    if output_stride != 32:
        wanted["output_stride"] = output_stride
    if drop_path:
        wanted["drop_path_rate"] = drop_path
    try:
        return timm.create_model(name, num_classes=0, **options, **wanted)
    except (TypeError, NotImplementedError, AssertionError, RuntimeError, ValueError) as error:
        if not wanted:
            raise
        raise ValueError(
            "MODEL.TIMM.OUTPUT_STRIDE and DROP_PATH must be 32 and 0.0 for this model: timm can't "
            f"make {name} with {wanted} ({error})."
        ) from error


def choose_features(architecture: str, strides: Sequence[int], last_stride: int) -> list[int]:
    """Places of the features of strides 4, 8, 16 and the last one; 16 comes twice if it is 16.

    Of several features of a stride, the last is taken, which has seen most of the model.

    Raises:
        ValueError: there are none of a stride.
    """
    places = {stride: place for place, stride in enumerate(strides)}
    if last_stride == 16 and strides.count(16) > 1:
        places[32] = places[16]
        places[16] -= 1
    elif last_stride == 16:
        places.pop(32, None)
    if {4, 8, 16, 32} - places.keys():
        keys = "MODEL.TIMM.NAME" if last_stride == 32 else "MODEL.TIMM.OUTPUT_STRIDE"
        raise ValueError(
            f"{keys}: the features of {architecture} have the strides "
            f"{', '.join(map(str, strides))}; a backbone needs 4, 8, 16 and {last_stride}."
        )
    return [places[stride] for stride in (4, 8, 16, 32)]


def _check(cfg: CfgNode) -> None:
    if cfg.MODEL.BACKBONE.NAME != NAME:
        return
    timm = cfg.MODEL.TIMM
    require_one_of(timm.NORM, "MODEL.TIMM.NORM", NORMS)
    stride = timm.OUTPUT_STRIDE
    require(stride in (16, 32), "MODEL.TIMM.OUTPUT_STRIDE", stride, "16 or 32")
    require(0 <= timm.DROP_PATH < 1, "MODEL.TIMM.DROP_PATH", timm.DROP_PATH, "in [0, 1)")
    width = timm.PYRAMID_WIDTH
    require(width >= 1, "MODEL.TIMM.PYRAMID_WIDTH", width, "at least 1")
    freeze_at = cfg.MODEL.BACKBONE.FREEZE_AT
    require(0 <= freeze_at <= 5, "MODEL.BACKBONE.FREEZE_AT", freeze_at, "in 0 … 5")
    require(cfg.INPUT.FORMAT == "RGB", "INPUT.FORMAT", cfg.INPUT.FORMAT, "'RGB' for timm's models")


def _resolve(cfg: CfgNode) -> None:
    """Completes mean and standard deviation of pixels, or warns once where they disagree."""
    if cfg.MODEL.BACKBONE.NAME != NAME:
        return
    pretrained = look_at(cfg.MODEL.TIMM.NAME).pretrained_cfg
    differ = []
    for key, values in (("PIXEL_MEAN", pretrained["mean"]), ("PIXEL_STD", pretrained["std"])):
        theirs = [round(255 * value, 3) for value in values]
        if not cfg.MODEL[key]:
            cfg.MODEL[key] = theirs
        elif max(abs(a - b) for a, b in zip(cfg.MODEL[key], theirs, strict=True)) > 0.1:
            differ.append(f"MODEL.{key} is {list(cfg.MODEL[key])}, timm's {theirs}")
    if differ:
        log_first_n(
            logging.WARNING,
            f"{cfg.MODEL.TIMM.NAME} was pretrained with other pixel statistics: "
            f"{'; '.join(differ)}. Set both to [] to follow the model.",
            key="message",
        )


PART_CHECKS.append(_check)
PART_RESOLVERS.append(_resolve)

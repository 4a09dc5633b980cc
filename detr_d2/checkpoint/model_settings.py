"""Settings that change what a model computes but not the shapes of its tensors."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from detectron2.config import CfgNode

from detr_d2.checkpoint.checkpoint_errors import CheckpointError, brief

# Settings of all of torchvision's ResNets, and of all DETRs of other projects.
OF_TORCHVISION: dict[str, Any] = {
    "stride_in_1x1": False,
    "input_format": "RGB",
    "backbone": "ResNet",
}
OF_DETR: dict[str, Any] = {
    "position_temperature": 10000.0,
    "mask_head": "AttentionMaskHead",
    "attention_softmax": "joint",
}
# Settings of mask heads, which don't matter where none is loaded.
OF_MASK_HEADS = ("mask_head", "attention_softmax")


@dataclass(frozen=True)
class ModelSettings:
    """Settings of a model; None if a checkpoint doesn't tell, or has no such part.

    Each attribute has the meaning and the values of the key in ``KEYS``.
    """

    num_heads: int | None = None
    pre_norm: bool | None = None
    position_embedding: str | None = None
    position_temperature: float | None = None
    res5_dilation: int | None = None
    mask_head: str | None = None
    attention_softmax: str | None = None
    stride_in_1x1: bool | None = None
    input_format: str | None = None
    backbone: str | None = None
    output_stride: int | None = None

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_config(
        cls, cfg: CfgNode, *, has_resnet: bool, of_timm: str | None = None
    ) -> ModelSettings:
        """Reads a config; ``MODEL.RESNETS`` is read only if the model has a ResNet.

        Args:
            cfg: the whole config.
            has_resnet: whether the backbone is Detectron2's ResNet, or has one.
            of_timm: the architecture of a backbone of timm; ``MODEL.TIMM`` is read only then.
        """
        resnet, mask_head = cfg.MODEL.RESNETS, cfg.MODEL.DETR.MASK_HEAD
        has_attention = mask_head.NAME != "PixelEmbeddingMaskHead"
        return cls(
            num_heads=cfg.MODEL.DETR.NUM_HEADS,
            pre_norm=cfg.MODEL.DETR.PRE_NORM,
            position_embedding=cfg.MODEL.DETR.POSITION_EMBEDDING,
            position_temperature=cfg.MODEL.DETR.POSITION_TEMPERATURE,
            res5_dilation=resnet.RES5_DILATION if has_resnet else None,
            mask_head=mask_head.NAME if cfg.MODEL.DETR.MASK_ON else None,
            attention_softmax=mask_head.ATTENTION_SOFTMAX if has_attention else None,
            stride_in_1x1=resnet.STRIDE_IN_1X1 if has_resnet else None,
            input_format=cfg.INPUT.FORMAT,
            backbone=f"{of_timm} of timm" if of_timm else "ResNet" if has_resnet else None,
            output_stride=cfg.MODEL.TIMM.OUTPUT_STRIDE if of_timm else None,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> ModelSettings:
        """Reads the result of ``to_dict``, also of another version: unknown names are ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: _plain(value) for name, value in values.items() if name in known})

    @classmethod
    def from_reference(cls, args: argparse.Namespace | None) -> ModelSettings:
        """Reads the arguments that the reference saves; its softmax is always joint."""
        said = {} if args is None else {name: _plain(x) for name, x in vars(args).items()}
        dilation, position_embedding = said.get("dilation"), said.get("position_embedding")
        positions: dict[str | None, str] = {"v2": "sine", "v3": "learned"}
        return cls(
            num_heads=said.get("nheads"),
            pre_norm=said.get("pre_norm"),
            position_embedding=positions.get(position_embedding, position_embedding),
            res5_dilation=None if dilation is None else 1 + bool(dilation),
            **OF_TORCHVISION,
            **OF_DETR,
        )

    @classmethod
    def from_hugging_face(cls, config: Mapping | None) -> ModelSettings:
        """Reads a ``config.json``; None gives only the settings that are the same for all.

        Raises:
            CheckpointError: this project has no settings for the described model.
        """
        always = {"pre_norm": False, **OF_TORCHVISION, **OF_DETR}
        if config is None:
            return cls(**always)
        heads = {
            _plain(config.get(f"{part}_attention_heads", 8)) for part in ("encoder", "decoder")
        }
        if len(heads) > 1:
            raise CheckpointError(
                f"its config.json has {' and '.join(map(brief, heads))} attention heads in encoder "
                "and decoder; this project needs the same number in both."
            )
        activation = config.get("activation_function", "relu")
        if activation != "relu":
            raise CheckpointError(
                f"its config.json has the activation {brief(repr(activation))}, not 'relu'."
            )
        return cls(
            num_heads=heads.pop(),
            position_embedding=_plain(config.get("position_embedding_type", "sine")),
            res5_dilation=2 if _is_dilated(config) else 1,
            **always,
        )


def _plain(value: object) -> Any:
    """Returns a value of a file if it has a type of settings, else None."""
    return value if isinstance(value, bool | int | float | str) else None


def _is_dilated(config: Mapping) -> bool:
    """Whether the backbone of a ``config.json`` keeps stride 16 in its last stage.

    Raises:
        CheckpointError: the backbone isn't torchvision's ResNet, although names are the same.
    """
    given = (config.get(f"backbone_{key}") for key in ("config", "kwargs"))
    backbone = next((x for x in given if x and isinstance(x, Mapping)), {})
    of_timm = config.get("backbone") if config.get("use_timm_backbone", True) else None
    name = backbone.get("backbone") or of_timm or "resnet50"
    stride = backbone.get("output_stride") or 32
    others = [
        f"{key} {brief(repr(value))}"
        for key, value, is_known in (
            ("backbone", name, re.fullmatch(r"resnet\d+", str(name))),
            ("output_stride", stride, stride in (16, 32)),
            (
                "hidden_act",
                backbone.get("hidden_act"),
                backbone.get("hidden_act", "relu") == "relu",
            ),
            *(
                (flag, True, not backbone.get(flag))
                for flag in ("downsample_in_bottleneck", "downsample_in_first_stage")
            ),
        )
        if not is_known
    ]
    if others:
        raise CheckpointError(
            f"its config.json has a backbone with {', '.join(others)}: it is not the ResNet of "
            "this project."
        )
    return bool(config.get("dilation")) or stride == 16


KEYS = {
    "num_heads": "MODEL.DETR.NUM_HEADS",
    "pre_norm": "MODEL.DETR.PRE_NORM",
    "position_embedding": "MODEL.DETR.POSITION_EMBEDDING",
    "position_temperature": "MODEL.DETR.POSITION_TEMPERATURE",
    "res5_dilation": "MODEL.RESNETS.RES5_DILATION",
    "mask_head": "MODEL.DETR.MASK_HEAD.NAME",
    "attention_softmax": "MODEL.DETR.MASK_HEAD.ATTENTION_SOFTMAX",
    "stride_in_1x1": "MODEL.RESNETS.STRIDE_IN_1X1",
    "input_format": "INPUT.FORMAT",
    "backbone": "The backbone",  # several keys decide it
    "output_stride": "MODEL.TIMM.OUTPUT_STRIDE",
}


def different_settings(
    file: ModelSettings, model: ModelSettings, has_mask_head: bool
) -> dict[str, str]:
    """Returns the settings in which file and model differ, each with a phrase that says how.

    Args:
        file: settings of the checkpoint.
        model: settings of the config.
        has_mask_head: whether a mask head is loaded; without one, its settings have no effect.
    """
    theirs, ours = file.to_dict(), model.to_dict()
    if model.position_embedding != "sine":
        del theirs["position_temperature"]
    for name in () if has_mask_head else OF_MASK_HEADS:
        del theirs[name]
    return {
        name: f"{KEYS[name]} is {ours[name]!r}, the file was made with {brief(repr(value))}"
        for name, value in theirs.items()
        if None not in (value, ours[name]) and value != ours[name]
    }

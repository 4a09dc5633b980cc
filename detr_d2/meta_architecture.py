"""Detectron2's meta-architecture "DETR": a config's model, which loads weights of any kind."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.modeling import Backbone, ResNet

from detr_d2 import modeling
from detr_d2.checkpoint import (
    LoadingRules,
    ModelSettings,
    resolve_config,
    run_classes,
    take_any_detr,
)
from detr_d2.checkpoint.parameter_names import BACKBONE
from detr_d2.checkpoint.pretrained_backbone import PretrainedNames
from detr_d2.config import set_key
from detr_d2.modeling.timm_backbone import TimmBackbone


def DETR(cfg: CfgNode) -> modeling.DETR:
    """Builds ``MODEL.META_ARCHITECTURE: "DETR"``, as Detectron2's ``build_model`` does.

    The config need not be resolved, and is not changed, with one exception: if there is no GPU,
    ``MODEL.DEVICE`` becomes the CPU, since Detectron2 later reads this key from the same config, in
    ``build_model`` and in each call of a ``DefaultPredictor``.

    Raises:
        ValueError: a key has a value that cannot work, datasets disagree, or nothing tells the
            number of classes.
        CheckpointError: see ``run_classes``.
    """
    resolved = resolve_config(cfg)
    if cfg.MODEL.DEVICE != resolved.MODEL.DEVICE:
        set_key(cfg, "MODEL.DEVICE", resolved.MODEL.DEVICE)
    classes = run_classes(resolved)
    model = modeling.DETR(resolved, classes=classes)
    backbone = model.detector.backbone
    rules = LoadingRules(
        classes=classes,
        settings=ModelSettings.from_config(
            resolved,
            has_resnet=any(isinstance(part, ResNet) for part in backbone.modules()),
            of_timm=backbone.architecture if isinstance(backbone, TimmBackbone) else None,
        ),
        resize=resolved.MODEL.DETR.RESIZE_ON_LOAD,
        frozen=resolved.MODEL.DETR.FREEZE_DETECTOR,
        pretrained=_pretrained_names(backbone),
    )
    take_any_detr(model, rules)
    return model


def _pretrained_names(backbone: Backbone) -> PretrainedNames | None:
    """How timm names the tensors of a backbone; None for those of other libraries."""
    if not isinstance(backbone, TimmBackbone):
        return None
    own = {theirs: BACKBONE + ours for theirs, ours in backbone.names_in_timm.items()}
    title = f"weights of timm's {backbone.architecture}"
    return PretrainedNames(title, own, backbone.names_of_whole)

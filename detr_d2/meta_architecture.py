"""What Detectron2 builds by the name "DETR": a config's model, ready for weights of any kind."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, ResNet

from detr_d2 import modeling
from detr_d2.checkpoint import (
    LoadingRules,
    ModelSettings,
    resolve_config,
    run_classes,
    take_any_detr,
)
from detr_d2.config import set_key


@META_ARCH_REGISTRY.register()
def DETR(cfg: CfgNode) -> modeling.DETR:
    """Builds ``MODEL.META_ARCHITECTURE: "DETR"``, as Detectron2's ``build_model`` does.

    The config need not be resolved, and stays as it is. One key is the exception, where it cannot
    be used: a ``MODEL.DEVICE`` that isn't there becomes the CPU. Detectron2 reads it from the same
    config after this, in ``build_model`` and in each call of a ``DefaultPredictor``.

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
    has_resnet = any(isinstance(part, ResNet) for part in model.detector.backbone.modules())
    rules = LoadingRules(
        classes=classes,
        settings=ModelSettings.from_config(resolved, has_resnet=has_resnet),
        resize=resolved.MODEL.DETR.RESIZE_ON_LOAD,
        frozen=resolved.MODEL.DETR.FREEZE_DETECTOR,
    )
    take_any_detr(model, rules)
    return model

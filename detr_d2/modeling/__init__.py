"""The model, which knows no files. Importing this package registers its backbone and mask head."""

from detr_d2.modeling.backbone import build_detr_resnet_backbone
from detr_d2.modeling.detr import DETR
from detr_d2.modeling.mask_head import DETR_MASK_HEAD_REGISTRY, AttentionMaskHead

__all__ = ["DETR", "DETR_MASK_HEAD_REGISTRY", "AttentionMaskHead", "build_detr_resnet_backbone"]

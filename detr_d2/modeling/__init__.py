"""The model. Importing this package registers its backbone, mask head and meta-architecture."""

from detr_d2.modeling.attention_mask_head import DETR_MASK_HEAD_REGISTRY, AttentionMaskHead
from detr_d2.modeling.backbone import build_detr_resnet_backbone
from detr_d2.modeling.detr import DETR

__all__ = ["DETR", "DETR_MASK_HEAD_REGISTRY", "AttentionMaskHead", "build_detr_resnet_backbone"]

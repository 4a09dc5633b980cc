"""The model. It reads no files. Importing this package registers its backbone and parts."""

from detr_d2.modeling.attention_mask_head import AttentionMaskHead
from detr_d2.modeling.backbone import build_detr_resnet_backbone
from detr_d2.modeling.build_timm_backbone import build_timm_backbone
from detr_d2.modeling.detr import DETR
from detr_d2.modeling.inference_options import PanopticOptions
from detr_d2.modeling.mask_head_base import DETR_MASK_HEAD_REGISTRY, MaskHead
from detr_d2.modeling.merging_rules import MERGING_RULES
from detr_d2.modeling.pixel_embedding_mask_head import PixelEmbeddingMaskHead
from detr_d2.modeling.transformer import Transformer
from detr_d2.modeling.transformer_base import DETR_TRANSFORMER_REGISTRY, DetectorTransformer

__all__ = [
    "DETR",
    "DETR_MASK_HEAD_REGISTRY",
    "DETR_TRANSFORMER_REGISTRY",
    "AttentionMaskHead",
    "DetectorTransformer",
    "MERGING_RULES",
    "MaskHead",
    "PanopticOptions",
    "PixelEmbeddingMaskHead",
    "Transformer",
    "build_detr_resnet_backbone",
    "build_timm_backbone",
]

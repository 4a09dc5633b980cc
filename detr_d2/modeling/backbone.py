"""The convolutional backbone: Detectron2's ResNet with DETR's rule for a dilated res5."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, ResNet, build_resnet_backbone


@BACKBONE_REGISTRY.register()
def build_detr_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Builds Detectron2's ResNet from ``MODEL.RESNETS``, with torchvision's dilation (DC5).

    Where res5 keeps stride 16 (``RES5_DILATION: 2``), torchvision leaves the 3×3 convolution of its
    first block undilated, since that block still sees the grid of res4. Detectron2 dilates it too,
    which released DC5 weights were not trained for. The weights' shapes are the same.
    """
    backbone = build_resnet_backbone(cfg, input_shape)
    if cfg.MODEL.RESNETS.RES5_DILATION == 2:
        first_conv3x3 = backbone.res5[0].conv2
        first_conv3x3.dilation = (1, 1)
        first_conv3x3.padding = (1, 1)
    return backbone

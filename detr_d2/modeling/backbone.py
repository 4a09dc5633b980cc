"""The convolutional backbone: Detectron2's ResNet with three rules of its own."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import ResNet, build_resnet_backbone
from torch import nn

from detr_d2.modeling.folded_conv import fold_batch_norms


def build_detr_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Builds Detectron2's ResNet from ``MODEL.RESNETS`` for DETR.

    Batch norm is folded into convolutions wherever its statistics are fixed.

    Where res5 keeps stride 16 (``RES5_DILATION: 2``), torchvision leaves the 3×3 convolution of its
    first block undilated, since that block still sees the grid of res4. Detectron2 dilates it too,
    but released DC5 weights were trained without. The weights' shapes are the same.

    Where batch norm is trained, each residual block starts as the identity (Goyal et al. 2017,
    arXiv:1706.02677, section 5.1). Without this, a training from scratch predicts classes at chance
    for many times longer. Loaded weights replace these initial values.
    """
    backbone = build_resnet_backbone(cfg, input_shape)
    if cfg.MODEL.RESNETS.RES5_DILATION == 2:
        first_conv3x3 = backbone.res5[0].conv2
        first_conv3x3.dilation = (1, 1)
        first_conv3x3.padding = (1, 1)
    for stage in backbone.stages:
        for block in stage:
            last_conv = getattr(block, "conv3", None) or block.conv2
            if isinstance(last_conv.norm, nn.modules.batchnorm._BatchNorm):
                nn.init.zeros_(last_conv.norm.weight)
    fold_batch_norms(backbone)
    return backbone

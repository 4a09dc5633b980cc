"""Convolutions whose weights include the batch norm that follows them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn


class FoldedConv2d(Conv2d):
    """Detectron2's convolution, whose batch norm costs no pass over its output.

    A norm by fixed statistics is a factor and a shift for each channel. Each call multiplies them
    into weight and bias. This takes little time compared to the convolution, no copy of the weights
    can get out of date, and parameters, gradients and checkpoints stay the same. Norms of other
    kinds, and batch norm in training, are computed as in Detectron2.
    """

    @classmethod
    def of(cls, conv: nn.Conv2d, norm: nn.Module | None) -> FoldedConv2d:
        """A convolution that shares the parameters of another, and has a norm."""
        folded = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            bias=conv.bias is not None,
            padding_mode=conv.padding_mode,
            norm=norm,
            activation=getattr(conv, "activation", None),
            device="meta",  # draws no random numbers for values that are replaced at once
        )
        folded.weight, folded.bias = conv.weight, conv.bias
        folded.training = conv.training
        return folded

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B×C×H×W to B×C'×H'×W'."""
        if not has_fixed_statistics(self.norm):
            return super().forward(x)
        weight, bias = self.folded()
        x = F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        return x if self.activation is None else self.activation(x)

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of a convolution that includes the norm.

        Only for norms of fixed statistics, see ``has_fixed_statistics``.
        """
        norm = self.norm
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        bias = norm.bias - norm.running_mean * scale
        if self.bias is not None:
            bias = bias + self.bias * scale
        return self.weight * scale[:, None, None, None], bias


def has_fixed_statistics(norm: nn.Module | None) -> bool:
    """Whether a norm is batch norm, frozen or in evaluation mode."""
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        return not norm.training and norm.track_running_stats and norm.affine
    return isinstance(norm, FrozenBatchNorm2d)


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Puts a ``FoldedConv2d`` in the place of each of Detectron2's convolutions in a module.

    Returns:
        The module itself; if it is such a convolution, what takes its place.
    """
    if type(module) is Conv2d:
        conv: Any = module
        return FoldedConv2d.of(conv, conv.norm)
    for name, part in module.named_children():
        setattr(module, name, fold_batch_norms(part))
    return module

"""Models of timm with stages, such as ResNet, EfficientNet, ConvNeXt and Swin.

Axes: B images, H×W the padded batch, C channels of a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from torch import nn

from detr_d2.modeling.folded_siblings import BatchNorm, replace_module
from detr_d2.modeling.timm_backbone import FEATURES, TimmBackbone, crop_to_grid, pad_to_multiple

# Images that are padded get sides that this many pixels divide, whatever the stride of res5.
CELL = 32


class TimmStages(TimmBackbone):
    """Four stages of a model of timm.

    Where the model has batch norm, its features are given as they are. Where it has none, as Swin
    and ConvNeXt, the channels of each pixel are normed, as in these models' own detectors. The norm
    has no weights: the 1×1 convolutions that take the features have them.

    Images are padded with zeros to whole cells where a model can't take images of any size, leaves
    incomplete cells out, or pads as TensorFlow, so that odd sides would shift its cells.
    """

    def __init__(
        self, architecture: str, model: Any, indices: Sequence[int], freeze_at: int, norm: str
    ) -> None:
        """Takes the first parts of a model, and leaves out the rest.

        Args:
            architecture: its name in timm.
            model: with random weights; is changed.
            indices: of the four features in its ``feature_info``.
            freeze_at: see ``set_up``.
            norm: likewise.

        Raises:
            ValueError: the model takes only images of one size.
        """
        features = [model.feature_info[i] for i in indices]
        shapes = {
            name: ShapeSpec(channels=feature["num_chs"], stride=feature["reduction"])
            for name, feature in zip(FEATURES, features, strict=True)
        }
        model.prune_intermediate_layers(list(indices), prune_norm=True, prune_head=True)
        super().__init__(architecture, model, shapes)
        self.indices = list(indices)
        self.is_normed = any(isinstance(module, BatchNorm) for module in model.modules())
        self.pads = False
        self.pads = any(map(_pads_as_tensorflow, model.modules())) or not self.takes_any_size()
        if self.pads:
            self.require_any_size()
        ends = [feature["module"] for feature in features]
        self.set_up([self.end_of_stem(ends[0]), *ends], freeze_at, norm)

    def replace_parts(self) -> None:
        """Replaces TensorFlow's padding, which depends on the size, by that for whole cells.

        With padding that depends on the size, tracing a graph of any image size takes too long.
        """
        for name, module in list(self.model.named_modules()):
            if _pads_as_tensorflow(module):
                replace_module(self.model, name, _padded_statically(module))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """B×3×H×W, normalised, to four features."""
        padded = pad_to_multiple(x, CELL) if self.pads else x
        features = self.model.forward_intermediates(
            padded, indices=self.indices, output_fmt="NCHW", intermediates_only=True
        )
        result = {}
        for (name, shape), feature in zip(self.shapes.items(), features, strict=True):
            if not self.is_normed:
                pixels = feature.permute(0, 2, 3, 1)  # B×·×·×C
                pixels = F.layer_norm(pixels, (shape.channels,))
                feature = pixels.permute(0, 3, 1, 2)
            if self.pads:
                feature = crop_to_grid(feature, x, shape.stride)
            result[name] = feature
        return result


def _pads_as_tensorflow(module: nn.Module) -> bool:
    """Whether it is a convolution whose padding depends on the size of its input."""
    from timm.layers import Conv2dSame

    return type(module) is Conv2dSame


def _padded_statically(conv: nn.Conv2d) -> nn.Sequential:
    """A convolution with the weights of one that pads as TensorFlow, for inputs of whole cells."""
    sizes = zip(conv.kernel_size, conv.dilation, conv.stride, strict=True)
    missing = [max((size - 1) * dilation + 1 - stride, 0) for size, dilation, stride in sizes]
    rows, columns = ((pixels // 2, pixels - pixels // 2) for pixels in missing)
    options: dict[str, Any] = {"stride": conv.stride, "dilation": conv.dilation}
    options |= {"groups": conv.groups, "bias": conv.bias is not None, "device": "meta"}
    channels = conv.in_channels, conv.out_channels
    static = nn.Conv2d(*channels, conv.kernel_size, **options)  # type: ignore[arg-type]
    static.weight, static.bias = conv.weight, conv.bias
    return nn.Sequential(nn.ZeroPad2d((*columns, *rows)), static)

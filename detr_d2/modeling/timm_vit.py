"""Plain vision transformers of timm, such as ViT, DeiT, DINOv2 and DINOv3, with a simple pyramid.

Axes: B images, H×W the padded batch, C channels.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid
from torch import nn

from detr_d2.modeling.timm_backbone import (
    FEATURES,
    TimmBackbone,
    crop_to_grid,
    grid_size,
    pad_to_multiple,
)

# Pixels of the input's side that a patch covers.
PATCH = 16


class _LastTokens(Backbone):
    """The tokens of the last block as a feature, for Detectron2's pyramid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {"tokens": ShapeSpec(channels=self.channels, stride=PATCH)}

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"tokens": tokens}


class TimmViT(TimmBackbone):
    """A plain ViT, from whose last tokens a simple feature pyramid makes four features.

    The pyramid is Detectron2's (ViTDet: Li et al. 2022, arXiv:2203.16527, section 3). Images are
    padded with zeros to whole patches of 16 pixels. For a model of another patch size p, they are
    then resized by p / 16, so that the grid stays what it is for all others.

    Attention and positions see the whole picture. So images of several sizes in a batch go through
    the model one size at a time, each without its padding.
    """

    takes_padding_mask = True

    def __init__(
        self, architecture: str, model: Any, pyramid_width: int, freeze_at: int, norm: str
    ) -> None:
        """Takes a model, and leaves out its head.

        Args:
            architecture: its name in timm.
            model: with random weights; is changed.
            pyramid_width: channels of the features.
            freeze_at: see ``set_up``: the stages are quarters of the blocks. The pyramid is always
                trained.
            norm: likewise.
        """
        shapes = {
            name: ShapeSpec(channels=pyramid_width, stride=stride)
            for name, stride in zip(FEATURES, (4, 8, 16, 32), strict=True)
        }
        depth = len(model.feature_info)
        model.prune_intermediate_layers([depth - 1], prune_norm=False, prune_head=True)
        super().__init__(architecture, model, shapes)
        self.last_block = depth - 1
        self.patch = model.feature_info[-1]["reduction"]
        self.pyramid = SimpleFeaturePyramid(
            _LastTokens(model.feature_info[-1]["num_chs"]),
            *("tokens", pyramid_width, (4.0, 2.0, 1.0, 0.5)),
        )
        for module in self.pyramid.modules():
            if isinstance(module, nn.MaxPool2d):
                module.ceil_mode = True  # other backbones round sides up, too
        self.require_any_size()
        blocks = [feature["module"] for feature in model.feature_info]
        ends = [blocks[math.ceil(depth * n / 4) - 1] for n in range(1, 4)]
        *_, last = (name for name, _ in model.named_modules())
        self.set_up([self.end_of_stem(blocks[0]), *ends, last], freeze_at, norm)

    def forward(
        self, x: torch.Tensor, padding_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Makes four features.

        Args:
            x: B×3×H×W, normalised.
            padding_mask: B×H×W bool, True = padding, right and bottom; None where there is none.
        """
        if padding_mask is None:
            return self._features(x)
        valid = ~padding_mask
        heights, widths = valid[:, :, 0].sum(1).tolist(), valid[:, 0].sum(1).tolist()
        images_of = defaultdict(list)
        for i, size in enumerate(zip(heights, widths, strict=True)):
            images_of[size].append(i)
        result = {
            name: x.new_zeros(len(x), shape.channels, *grid_size(x, shape.stride))
            for name, shape in self.shapes.items()
        }
        for (height, width), images in images_of.items():
            for name, feature in self._features(x[images, :, :height, :width]).items():
                rows, columns = feature.shape[-2:]
                result[name] = result[name].to(feature.dtype)  # autocast may give another type
                result[name][images, :, :rows, :columns] = feature
        return result

    def _features(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Four features of B×3×H×W without padding."""
        padded = pad_to_multiple(x, PATCH)
        if self.patch != PATCH:
            size = [side // PATCH * self.patch for side in padded.shape[-2:]]
            padded = F.interpolate(padded, size=size, mode="bilinear")
        (tokens,) = self.model.forward_intermediates(
            padded, indices=[self.last_block], norm=True, intermediates_only=True
        )  # B×C×⌈H/16⌉×⌈W/16⌉
        features = self.pyramid(tokens).values()
        return {
            name: crop_to_grid(feature, x, shape.stride)
            for (name, shape), feature in zip(self.shapes.items(), features, strict=True)
        }

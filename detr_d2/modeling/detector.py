"""The detector: an image to N object queries, each with a class and a box.

Axes: B images, Q queries, K classes, D width, L decoder layers; h×w the res5 grid, H×W the padded
batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import Backbone, build_backbone
from detectron2.structures import ImageList
from torch import nn
from torch.profiler import record_function

from detr_d2.modeling.position_encoding import build_position_encoding
from detr_d2.modeling.transformer import Transformer


@dataclass(frozen=True)
class DetectorOutput:
    """Everything the detector computes for a batch.

    Attributes:
        features: the backbone's outputs, finest first, each B×C×·×·.
        padding_mask: B×h×w bool, True = padding; None where no image is padded.
        projected: B×D×h×w, the coarsest feature at the transformer's width.
        memory: B×D×h×w, the encoded image.
        hidden: L×B×Q×D, the output of every decoder layer.
        logits: L'×B×Q×(K+1); L' is L where auxiliary losses want all layers, else 1 (the last).
        boxes_cxcywh: L'×B×Q×4, relative to each image's own size, in [0, 1].
    """

    features: list[torch.Tensor]
    padding_mask: torch.Tensor | None
    projected: torch.Tensor
    memory: torch.Tensor
    hidden: torch.Tensor
    logits: torch.Tensor
    boxes_cxcywh: torch.Tensor

    def of_image(self, i: int) -> DetectorOutput:
        """Views of what belongs to image i, as a batch of one."""
        one = slice(i, i + 1)
        return DetectorOutput(
            features=[feature[one] for feature in self.features],
            padding_mask=None if self.padding_mask is None else self.padding_mask[one],
            projected=self.projected[one],
            memory=self.memory[one],
            hidden=self.hidden[:, one],
            logits=self.logits[:, one],
            boxes_cxcywh=self.boxes_cxcywh[:, one],
        )


class BoxHead(nn.Module):
    """Three linear layers from a query to its box (paper, section 3.2)."""

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        widths = [hidden_dim, hidden_dim, hidden_dim, 4]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Maps …×D to …×4 boxes (cx, cy, w, h) in [0, 1]."""
        *inner, last = self.layers
        for layer in inner:
            hidden = F.relu(layer(hidden))
        return last(hidden).sigmoid()


class Detector(nn.Module):
    """DETR without masks (paper, section 3.2): backbone, transformer, class and box heads."""

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        in_features: Sequence[str],
        position_encoding: nn.Module,
        transformer: Transformer,
        hidden_dim: int,
        num_classes: int,
        num_queries: int,
    ) -> None:
        """Wires the parts.

        Args:
            backbone: gives the features named in ``in_features``.
            in_features: names, finest first; the last is the transformer's input.
            position_encoding: B×h×w padding mask → B×D×h×w.
            transformer: encoder and decoder of width D.
            hidden_dim: D.
            num_classes: K, without "no object".
            num_queries: Q.
        """
        super().__init__()
        # Same weights in another order of memory: convolutions on a CPU are up to twice as fast.
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.in_features = list(in_features)
        self.input_proj = nn.Conv2d(self.feature_channels[-1], hidden_dim, kernel_size=1)
        self.position_encoding = position_encoding
        self.transformer = transformer
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.class_head = nn.Linear(hidden_dim, num_classes + 1)
        self.box_head = BoxHead(hidden_dim)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        detr = cfg.MODEL.DETR
        backbone = build_backbone(cfg)
        _check_features(backbone, detr.IN_FEATURES)
        return {
            "backbone": backbone,
            "in_features": detr.IN_FEATURES,
            "position_encoding": build_position_encoding(
                detr.POSITION_EMBEDDING,
                detr.HIDDEN_DIM,
                detr.POSITION_TEMPERATURE,
                backbone.output_shape()[detr.IN_FEATURES[-1]].stride,
            ),
            "transformer": Transformer(
                hidden_dim=detr.HIDDEN_DIM,
                num_heads=detr.NUM_HEADS,
                enc_layers=detr.ENC_LAYERS,
                dec_layers=detr.DEC_LAYERS,
                dim_feedforward=detr.DIM_FEEDFORWARD,
                dropout=detr.DROPOUT,
                pre_norm=detr.PRE_NORM,
            ),
            "hidden_dim": detr.HIDDEN_DIM,
            "num_classes": detr.NUM_CLASSES,
            "num_queries": detr.NUM_QUERIES,
        }

    @property
    def feature_channels(self) -> list[int]:
        """Channels of the features, finest first."""
        shapes = self.backbone.output_shape()
        return [shapes[name].channels for name in self.in_features]

    @property
    def max_side(self) -> int | None:
        """Pixels of the longest side that images may have; None: any number."""
        return getattr(self.position_encoding, "max_side", None)

    def forward(self, images: ImageList, all_layers: bool = False) -> DetectorOutput:
        """Detects objects.

        Args:
            images: B×3×H×W, normalised and padded.
            all_layers: whether to predict from every decoder layer, or from the last alone.
        """
        with record_function("backbone"):
            feature_maps = self.backbone(images.tensor)
        features = [feature_maps[name] for name in self.in_features]
        projected = self.input_proj(features[-1])  # B×D×h×w
        padding_mask = grid_padding_mask(images, projected.shape[-2:])  # B×h×w
        positions = self.position_encoding(padding_mask)  # B×D×h×w
        if not is_padded(images):
            padding_mask = None  # attention is faster without
        with record_function("transformer"):
            hidden, memory = self.transformer(
                projected, padding_mask, self.query_embed.weight, positions
            )
        with torch.autocast(hidden.device.type, enabled=False):
            # With the 8 bits of half precision, boxes would be off by pixels.
            heads_input = (hidden if all_layers else hidden[-1:]).to(self.class_head.weight.dtype)
            logits, boxes_cxcywh = self.class_head(heads_input), self.box_head(heads_input)
        return DetectorOutput(
            features=features,
            padding_mask=padding_mask,
            projected=projected,
            memory=memory,
            hidden=hidden,
            logits=logits,
            boxes_cxcywh=boxes_cxcywh,
        )


def grid_padding_mask(images: ImageList, grid: Sequence[int]) -> torch.Tensor:
    """The padding mask of the full batch, brought to a feature grid by its nearest pixels.

    Args:
        images: B images in a batch of H×W.
        grid: (h, w).

    Returns:
        B×h×w bool, True = padding.
    """
    mask = torch.ones((len(images), *images.tensor.shape[-2:]), device=images.tensor.device)
    for image_mask, (height, width) in zip(mask, images.image_sizes, strict=True):
        image_mask[:height, :width] = 0
    return F.interpolate(mask[None], size=tuple(grid), mode="nearest")[0].bool()


def is_padded(images: ImageList) -> bool:
    """Whether any image is smaller than its batch."""
    batch_size = tuple(images.tensor.shape[-2:])
    return any(tuple(size) != batch_size for size in images.image_sizes)


def _check_features(backbone: Backbone, in_features: Sequence[str]) -> None:
    """Makes sure that the backbone gives the named features.

    Raises:
        ValueError: it doesn't.
    """
    given = backbone.output_shape()
    missing = [name for name in in_features if name not in given]
    if missing:
        raise ValueError(
            f"MODEL.DETR.IN_FEATURES names {', '.join(missing)}, which the backbone doesn't give: "
            f"it gives {', '.join(given)}. For a ResNet, MODEL.RESNETS.OUT_FEATURES must have "
            "res2, res3, res4 and res5."
        )

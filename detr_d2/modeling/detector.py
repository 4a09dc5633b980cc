"""The detector: it predicts a class and a box for each object query of an image.

Axes: B images, Q queries, K classes, D width, L decoder layers; h×w the res5 grid, H×W the padded
batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import Backbone, build_backbone
from detectron2.structures import ImageList
from torch import nn
from torch.profiler import record_function

from detr_d2.modeling.position_encoding import build_position_encoding
from detr_d2.modeling.targets import Target
from detr_d2.modeling.three_layers import ThreeLayers
from detr_d2.modeling.transformer_base import DetectorTransformer, build_transformer


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
        losses: further weighted losses, which the transformer has in training.
    """

    features: list[torch.Tensor]
    padding_mask: torch.Tensor | None
    projected: torch.Tensor
    memory: torch.Tensor
    hidden: torch.Tensor
    logits: torch.Tensor
    boxes_cxcywh: torch.Tensor
    losses: Mapping[str, torch.Tensor]

    def image_inputs(self) -> dict[str, Any]:
        """The arguments of a ``MaskHead`` that say what the images are."""
        return {
            "memory": self.memory,
            "projected": self.projected,
            "laterals": self.features[-2::-1],
            "padding_mask": self.padding_mask,
        }

    def mask_inputs(self) -> dict[str, Any]:
        """The arguments of a ``MaskHead``, except for the choice of queries."""
        return {"queries": self.hidden[-1], **self.image_inputs()}

    def of_image(self, i: int) -> DetectorOutput:
        """Views of what belongs to image i, as a batch of one."""
        one = slice(i, i + 1)
        return replace(
            self,
            features=[feature[one] for feature in self.features],
            padding_mask=None if self.padding_mask is None else self.padding_mask[one],
            projected=self.projected[one],
            memory=self.memory[one],
            hidden=self.hidden[:, one],
            logits=self.logits[:, one],
            boxes_cxcywh=self.boxes_cxcywh[:, one],
        )


class BoxHead(ThreeLayers):
    """From a query, …×D, to …×4 logits of its box (cx, cy, w, h) (paper, section 3.2)."""

    def __init__(self, hidden_dim: int) -> None:
        super().__init__(hidden_dim, 4)


class Detector(nn.Module):
    """DETR without masks (paper, section 3.2): backbone, transformer, class and box heads."""

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        in_features: Sequence[str],
        position_encoding: nn.Module,
        transformer: DetectorTransformer,
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
            "transformer": build_transformer(cfg),
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
    def size_divisibility(self) -> int:
        """The number that divides the sides of batches, if the backbone asks for one; else 0."""
        # Swin's property raises an AttributeError. ViTs' pyramids have a key, spelt as below.
        divisor = getattr(self.backbone, "size_divisibility", 0)
        return max(divisor, self.backbone.padding_constraints.get("size_divisiblity", 0))

    @property
    def max_side(self) -> int | None:
        """Pixels of the longest side that images may have; None: any number."""
        return getattr(self.position_encoding, "max_side", None)

    def forward(
        self,
        images: ImageList,
        all_layers: bool = False,
        targets: Sequence[Target] | None = None,
        features: list[torch.Tensor] | None = None,
    ) -> DetectorOutput:
        """Detects objects in B images, normalised and padded to one size; see ``encode``."""
        padding_mask = pixel_padding_mask(images)
        return self.encode(images.tensor, padding_mask, all_layers, targets, features)

    def encode(
        self,
        pixels: torch.Tensor,
        padding_mask: torch.Tensor | None,
        all_layers: bool = False,
        targets: Sequence[Target] | None = None,
        features: list[torch.Tensor] | None = None,
    ) -> DetectorOutput:
        """The whole way from pixels to classes and boxes, for training, inference and export.

        Args:
            pixels: B×3×H×W, normalised.
            padding_mask: B×H×W bool, True = padding; None where no image is padded.
            all_layers: whether to predict from every decoder layer, or from the last alone.
            targets: of the B images, for transformers that need them in training.
            features: of these pixels, where they are known already.
        """
        if features is None:
            features = self.features(pixels, padding_mask)
        projected = self.input_proj(features[-1])  # B×D×h×w
        if padding_mask is None:  # attention is faster without
            no_padding = torch.zeros_like(projected[:, 0], dtype=torch.bool)  # B×h×w
            positions = self.position_encoding(no_padding)  # B×D×h×w
        else:
            padding_mask = to_grid(padding_mask, projected.shape[-2:])  # B×h×w
            positions = self.position_encoding(padding_mask)  # B×D×h×w
        with span("transformer"):
            transformed = self.transformer(
                projected, padding_mask, positions, self.query_embed.weight, targets
            )
        hidden, reference_boxes = transformed.hidden, transformed.reference_boxes
        if not all_layers:
            hidden = hidden[-1:]
            reference_boxes = None if reference_boxes is None else reference_boxes[-1:]
        logits, boxes_cxcywh = self.predict(hidden, reference_boxes)
        return DetectorOutput(
            features=features,
            padding_mask=padding_mask,
            projected=projected,
            memory=transformed.memory,
            hidden=transformed.hidden,
            logits=logits,
            boxes_cxcywh=boxes_cxcywh,
            losses=transformed.losses,
        )

    def features(
        self, pixels: torch.Tensor, padding_mask: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """The backbone's features of B×3×H×W, finest first; B×H×W bool tells what is padding."""
        with span("backbone"):
            if getattr(self.backbone, "takes_padding_mask", False):
                feature_maps = self.backbone(pixels, padding_mask)
            else:
                feature_maps = self.backbone(pixels)
        return [feature_maps[name] for name in self.in_features]

    def predict(
        self, hidden: torch.Tensor, reference_boxes: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Classes and boxes of decoded queries, in the precision of the weights.

        Args:
            hidden: …×Q×D.
            reference_boxes: …×Q×2 or ×4, see ``Transformed``; None: boxes start from nothing.

        Returns:
            …×Q×(K+1) logits of classes, and …×Q×4 boxes (cx, cy, w, h) in [0, 1].
        """
        with _without_autocast(hidden.device):
            # bfloat16 has 8 bits of precision: boxes would be wrong by some pixels.
            hidden = hidden.to(self.class_head.weight.dtype)
            box_logits = self.box_head(hidden)
            if reference_boxes is not None:
                start = torch.special.logit(reference_boxes.to(box_logits.dtype), eps=1e-5)
                box_logits = box_logits + F.pad(start, (0, 4 - start.shape[-1]))
            return self.class_head(hidden), box_logits.sigmoid()


def pixel_padding_mask(images: ImageList) -> torch.Tensor | None:
    """B×H×W bool, True = padding; None where every image is as large as the batch."""
    batch_size = tuple(images.tensor.shape[-2:])
    if all(tuple(size) == batch_size for size in images.image_sizes):
        return None
    shape = (len(images), *batch_size)
    mask = torch.ones(shape, dtype=torch.bool, device=images.tensor.device)
    for image_mask, (height, width) in zip(mask, images.image_sizes, strict=True):
        image_mask[:height, :width] = False
    return mask


def to_grid(padding_mask: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """B×H×W bool to B×h×w, by the nearest pixels of a feature grid of (h, w)."""
    return F.interpolate(padding_mask[None].float(), size=tuple(grid), mode="nearest")[0].bool()


def span(name: str) -> AbstractContextManager:
    """A span of this name in PyTorch's profiler; traced graphs have none."""
    return nullcontext() if torch.compiler.is_compiling() else record_function(name)


def _without_autocast(device: torch.device) -> AbstractContextManager:
    """Switches autocast off. If it is off already, a traced graph gets no context for it."""
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


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

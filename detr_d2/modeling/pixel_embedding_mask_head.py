"""The mask head that embeds pixels: a mask is the product of a query's embedding with each pixel's.

Axes: B images, Q queries, N (image, query) pairs whose masks are wanted, D width, C channels of an
embedding; h×w the res5 grid, later that of a lateral, H×W the padded batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import nn
from torch.utils.checkpoint import checkpoint

from detr_d2.config_checks import require
from detr_d2.modeling.detector import span
from detr_d2.modeling.mask_head_base import (
    DETR_MASK_HEAD_REGISTRY,
    ExplainedModules,
    ExportedMaskHead,
    MaskHead,
)
from detr_d2.modeling.pixel_embedding import PixelEmbedding, QueryEmbedding


@DETR_MASK_HEAD_REGISTRY.register()
class PixelEmbeddingMaskHead(MaskHead):
    """MaskFormer's masks (Cheng et al. 2021, arXiv:2107.06278, section 3.3) on a DETR.

    The pixels of an image are embedded once. After that, each mask is a row of a matrix product,
    so that masks of all queries cost little more than masks of a few.
    """

    @configurable
    def __init__(
        self,
        *,
        hidden_dim: int,
        lateral_channels: Sequence[int],
        width: int,
        depth: int,
        checkpointing: bool,
    ) -> None:
        """Builds the head.

        Args:
            hidden_dim: D.
            lateral_channels: channels of the backbone's outputs at strides 16, 8 and 4.
            width: C, at least 2.
            depth: 3×3 convolutions at each stride.
            checkpointing: whether training recomputes activations of the pixels.
        """
        super().__init__()
        self.checkpointing = checkpointing
        self.pixel_embedding = PixelEmbedding(hidden_dim, lateral_channels, width, depth)
        self.query_embedding = QueryEmbedding(hidden_dim, width)

    @classmethod
    def from_config(cls, cfg: CfgNode, lateral_channels: Sequence[int]) -> dict:
        return {
            "hidden_dim": cfg.MODEL.DETR.HIDDEN_DIM,
            "lateral_channels": lateral_channels,
            "width": cfg.MODEL.DETR.MASK_HEAD.WIDTH,
            "depth": cfg.MODEL.DETR.MASK_HEAD.DEPTH,
            "checkpointing": cfg.MODEL.DETR.MASK_HEAD.CHECKPOINTING,
        }

    @classmethod
    def check_config(cls, cfg: CfgNode) -> None:
        for key, least in (("WIDTH", 2), ("DEPTH", 1)):
            value = cfg.MODEL.DETR.MASK_HEAD[key]
            require(value >= least, f"MODEL.DETR.MASK_HEAD.{key}", value, f"at least {least}")

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the embedding of pixels, which takes nearly all of the time, as one graph.

        The rest has one row for each query, and would be compiled again for each number of them.
        """
        self.pixel_embedding.compile(*args, **kwargs)

    def exported(self, strides: Sequence[int]) -> nn.Module:
        return ExportedPixelEmbeddingHead(self)

    def explained_modules(self) -> ExplainedModules:
        return ExplainedModules(
            pixel_embedding="pixel_embedding",
            query_embedding="query_embedding",
            image_stages=tuple(f"pixel_embedding.{name}" for name in self.pixel_embedding.norms),
        )

    def forward(
        self,
        *,
        queries: torch.Tensor,
        memory: torch.Tensor,
        projected: torch.Tensor,
        laterals: Sequence[torch.Tensor],
        padding_mask: torch.Tensor | None,
        image_index: torch.Tensor,
        query_index: torch.Tensor,
        pixels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Predicts the masks of N chosen queries, see ``MaskHead``.

        ``pixels`` are their B×C×H/4×W/4 embeddings, if these have been made already.
        """
        if pixels is None:
            pixels = self._embed_pixels(memory, projected, padding_mask, laterals)
        with span("mask_head"):
            embedded = self.query_embedding(queries[image_index, query_index])  # N×C
            if len(pixels) == 1:
                return _products(embedded, pixels[0])
            order = image_index.argsort(stable=True)
            counts = image_index.bincount(minlength=len(pixels)).tolist()
            of_images = zip(embedded[order].split(counts), pixels, strict=True)
            masks = torch.cat([_products(some, image) for some, image in of_images])
            return masks[order.argsort()]

    def for_images(self, **images: Any) -> Callable[..., torch.Tensor]:
        """Embeds the pixels of images, see ``MaskHead``."""
        return partial(super().for_images(**images), pixels=self._embed_pixels(**images))

    def _embed_pixels(
        self,
        memory: torch.Tensor,
        projected: torch.Tensor,
        padding_mask: torch.Tensor | None,
        laterals: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        inputs = (memory, projected, padding_mask, *laterals)
        with span("mask_head"):
            if self.checkpointing and torch.is_grad_enabled():
                return checkpoint(self.pixel_embedding, *inputs, use_reentrant=False)
            return self.pixel_embedding(*inputs)


class ExportedPixelEmbeddingHead(ExportedMaskHead):
    """Computes what a ``PixelEmbeddingMaskHead`` does, as one product for each image."""

    head: PixelEmbeddingMaskHead

    def forward(
        self,
        queries: torch.Tensor,
        memory: torch.Tensor,
        projected: torch.Tensor,
        laterals: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Predicts masks, see ``ExportedMaskHead``."""
        pixels = self.head.pixel_embedding(memory, projected, None, *laterals)  # B×C×H/4×W/4
        embedded = self.head.query_embedding(queries)  # B×k×C
        return (embedded @ pixels.flatten(2)).unflatten(2, pixels.shape[-2:])  # B×k×H/4×W/4


def _products(queries: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """n×C and C×H×W to n×H×W."""
    return (queries @ pixels.flatten(1)).unflatten(1, pixels.shape[1:])

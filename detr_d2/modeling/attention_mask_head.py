"""The mask head: attention maps of each query over the image, upsampled to masks at stride 4.

Axes: B images, Q queries, N (image, query) pairs whose masks are wanted, D width, M heads,
h×w the res5 grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from torch import nn
from torch.utils.checkpoint import checkpoint

from detr_d2.config_checks import require, require_one_of
from detr_d2.modeling.detector import span
from detr_d2.modeling.exported_attention_head import ExportedAttentionHead
from detr_d2.modeling.mask_head_base import (
    DETR_MASK_HEAD_REGISTRY,
    ExplainedModules,
    MaskHead,
    mask_head_conv,
)
from detr_d2.modeling.upsampled_conv import conv3x3_upsampled


class AttentionMap(nn.Module):
    """Attention of each head of each query to the points of the grid (paper, section 4.2)."""

    def __init__(self, hidden_dim: int, num_heads: int, softmax: str) -> None:
        """Takes D, M and the softmax, "joint" or "per_head" (see ``add_detr_config``)."""
        super().__init__()
        self.num_heads = num_heads
        self.scale = (hidden_dim / num_heads) ** -0.5
        # Dimensions of B×Q×M×S which together sum to one.
        self.softmax_over = {"joint": 2, "per_head": 3}[softmax]
        self.q_proj = nn.Linear(hidden_dim, hidden_dim)
        self.k_proj = nn.Linear(hidden_dim, hidden_dim)
        for projection in (self.q_proj, self.k_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self, queries: torch.Tensor, memory: torch.Tensor, padding_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Computes the attention maps of all queries.

        Args:
            queries: B×Q×D, the last decoder layer's output.
            memory: B×D×h×w, the encoded image.
            padding_mask: B×h×w bool, True = padding, which gets attention 0; None: no padding.

        Returns:
            B×Q×M×h×w; in float32, as every softmax here, also under autocast.
        """
        height, width = memory.shape[-2:]
        q = self.q_proj(queries).unflatten(2, (self.num_heads, -1))  # B×Q×M×D/M
        k = self.k_proj(memory.flatten(2).transpose(1, 2))  # B×S×D
        k = k.unflatten(2, (self.num_heads, -1))  # B×S×M×D/M
        logits = torch.einsum("bqmc,bsmc->bqms", q * self.scale, k).float()
        if padding_mask is not None:
            logits = logits.masked_fill(padding_mask.flatten(1)[:, None, None], -math.inf)
        attention = logits.flatten(self.softmax_over).softmax(-1)
        return attention.view(*logits.shape[:3], height, width)


@DETR_MASK_HEAD_REGISTRY.register()
class AttentionMaskHead(MaskHead):
    """DETR's panoptic head: attention maps, then an FPN-style convolution head per query.

    The convolutions see the projected res5 map and a query's M attention maps, and take in res4,
    res3 and res2 on the way up. What depends on the image alone is computed once per image.
    """

    @configurable
    def __init__(
        self,
        *,
        hidden_dim: int,
        num_heads: int,
        attention_softmax: str,
        lateral_channels: Sequence[int],
        chunk_size: int,
        checkpointing: bool,
    ) -> None:
        """Builds the head.

        Args:
            hidden_dim: D, divisible by 16.
            num_heads: M.
            attention_softmax: "joint" or "per_head".
            lateral_channels: channels of the backbone's outputs at strides 16, 8 and 4.
            chunk_size: how many masks are made at a time; 0: all.
            checkpointing: whether training recomputes a chunk's activations and doesn't keep them.
        """
        super().__init__()
        self.chunk_size = chunk_size
        self.checkpointing = checkpointing
        self.attention_map = AttentionMap(hidden_dim, num_heads, attention_softmax)
        widths = [hidden_dim + num_heads, *(hidden_dim // 2**k for k in range(1, 5))]
        self.input_conv = mask_head_conv(widths[0], widths[0], kernel_size=3)
        self.input_norm = _group_norm(widths[0])
        # Each step makes the next width; all but the first come after a lateral was added.
        self.convs = nn.ModuleList(mask_head_conv(i, o, kernel_size=3) for i, o in pairwise(widths))
        self.norms = nn.ModuleList(_group_norm(width) for width in widths[1:])
        self.laterals = nn.ModuleList(
            mask_head_conv(channels, width, kernel_size=1)
            for channels, width in zip(lateral_channels, widths[1:], strict=False)
        )
        self.output_conv = mask_head_conv(widths[-1], 1, kernel_size=3)

    @classmethod
    def from_config(cls, cfg: CfgNode, lateral_channels: Sequence[int]) -> dict:
        return {
            "hidden_dim": cfg.MODEL.DETR.HIDDEN_DIM,
            "num_heads": cfg.MODEL.DETR.NUM_HEADS,
            "attention_softmax": cfg.MODEL.DETR.MASK_HEAD.ATTENTION_SOFTMAX,
            "lateral_channels": lateral_channels,
            "chunk_size": cfg.MODEL.DETR.MASK_HEAD.CHUNK_SIZE,
            "checkpointing": cfg.MODEL.DETR.MASK_HEAD.CHECKPOINTING,
        }

    @classmethod
    def check_config(cls, cfg: CfgNode) -> None:
        detr, key = cfg.MODEL.DETR, "MODEL.DETR.MASK_HEAD"
        wanted = "divisible by 16, since the mask head halves it four times"
        require(detr.HIDDEN_DIM % 16 == 0, "MODEL.DETR.HIDDEN_DIM", detr.HIDDEN_DIM, wanted)
        chunk_size, softmax = detr.MASK_HEAD.CHUNK_SIZE, detr.MASK_HEAD.ATTENTION_SOFTMAX
        require(chunk_size >= 0, f"{key}.CHUNK_SIZE", chunk_size, "at least 0")
        require_one_of(softmax, f"{key}.ATTENTION_SOFTMAX", ("joint", "per_head"))

    def exported(self, strides: Sequence[int]) -> nn.Module:
        return ExportedAttentionHead(self, strides)

    def explained_modules(self) -> ExplainedModules:
        norms = ("input_norm", *(f"norms.{i}" for i in range(len(self.norms))))
        return ExplainedModules("attention_map", norms)

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
        image_parts: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Predicts the masks of N chosen queries, see ``MaskHead``.

        ``image_parts`` are what the method of this name gives, if it has been called already.
        """
        if image_parts is None:
            image_parts = self.image_parts(projected, laterals)
        with span("attention_maps"):
            attention = self.attention_map(queries, memory, padding_mask)  # B×Q×M×h×w
            attention = attention[image_index, query_index]  # N×M×h×w
            # The layout in memory is that of the image's features, which the backbone chose.
            attention = attention.to(projected.dtype, memory_format=torch.channels_last)
        with span("mask_head"):
            return self._in_chunks(attention, image_parts, image_index)

    def for_images(self, **images: Any) -> Callable[..., torch.Tensor]:
        """Computes the image's part of the convolutions, see ``MaskHead``."""
        image_parts = self.image_parts(images["projected"], images["laterals"])
        return partial(super().for_images(**images), image_parts=image_parts)

    def upsample(
        self,
        projected: torch.Tensor,
        attention: torch.Tensor,
        laterals: Sequence[torch.Tensor],
        image_index: torch.Tensor,
    ) -> torch.Tensor:
        """Turns N×M×h×w attention maps into N×H/4×W/4 mask logits; the rest as in ``forward``."""
        return self._in_chunks(attention, self.image_parts(projected, laterals), image_index)

    def _in_chunks(
        self,
        attention: torch.Tensor,
        image_parts: Sequence[torch.Tensor],
        image_index: torch.Tensor,
    ) -> torch.Tensor:
        """``upsample``, given what ``image_parts`` gives."""
        weight = self.input_conv.weight[:, -attention.shape[1] :]
        chunk_size = self.chunk_size or max(1, len(attention))
        masks = []
        for maps, images in zip(
            attention.split(chunk_size), image_index.split(chunk_size), strict=True
        ):
            inputs = (maps, images, weight, *image_parts)
            if self.checkpointing and torch.is_grad_enabled():
                masks.append(checkpoint(self._masks, *inputs, use_reentrant=False))
            else:
                masks.append(self._masks(*inputs))
        return torch.cat(masks)

    def image_parts(
        self, projected: torch.Tensor, laterals: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Computes the image's part of every convolution that sees the image, with its bias.

        Convolutions are linear. If their input is a sum or a concatenation of image and query, the
        image's part is computed once per image, and not for each query.

        Returns:
            B×(D+M)×h×w of the first convolution, and B×D/2ᵏ⁺¹×H×W of those that take in laterals.
        """
        with span("mask_head"):
            weight = self.input_conv.weight[:, : projected.shape[1]]
            parts = [F.conv2d(projected, weight, self.input_conv.bias, padding=1)]
            for lateral, feature, conv in zip(self.laterals, laterals, self.convs[1:], strict=True):
                parts.append(conv(lateral(feature)))
        return parts

    def _masks(
        self,
        attention: torch.Tensor,
        image_index: torch.Tensor,
        weight: torch.Tensor,
        *image_parts: torch.Tensor,
    ) -> torch.Tensor:
        """Makes n×H/4×W/4 mask logits of n×M×h×w attention maps."""
        first, *others = (_per_query(part, image_index) for part in image_parts)
        # In place where autograd allows it: most of the time goes into moving memory.
        x = F.conv2d(attention, weight, padding=1).add_(first)  # n×(D+M)×h×w
        x = F.relu_(self.input_norm(x))
        x = F.relu_(self.norms[0](self.convs[0](x)))  # n×D/2×h×w
        for conv, norm, part in zip(self.convs[1:], self.norms[1:], others, strict=True):
            x = conv3x3_upsampled(x, cast(nn.Conv2d, conv).weight, part.shape[-2:]) + part
            x = F.relu_(norm(x))  # n×D/2ᵏ⁺¹×H×W, twice the grid of the last
        return self.output_conv(x).squeeze(1)


def _per_query(per_image: torch.Tensor, image_index: torch.Tensor) -> torch.Tensor:
    """B×… to N×…, each query getting its image's part; a view where there is one image."""
    if per_image.shape[0] == 1:
        return per_image.expand(len(image_index), *per_image.shape[1:])
    return per_image[image_index]


class _GroupNorm(nn.GroupNorm):
    """Group norm that accepts groups of one value, as a mask on a grid of one pixel has.

    PyTorch's module refuses such groups if the batch is one query, but accepts them if it is two.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def _group_norm(channels: int) -> nn.GroupNorm:
    # Eight groups, as the reference has; fewer for the widths of tiny models that 8 doesn't divide.
    return _GroupNorm(math.gcd(8, channels), channels)

"""DETR's transformer: an encoder over the image's grid and a decoder over object queries.

Axes: B images, S grid points (h·w), Q queries, D width, M heads, L decoder layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from torch import nn

from detr_d2.modeling.targets import Target
from detr_d2.modeling.transformer_base import (
    DETR_TRANSFORMER_REGISTRY,
    DetectorTransformer,
    Transformed,
)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention of M heads."""

    def __init__(self, hidden_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.q_proj = nn.Linear(hidden_dim, hidden_dim)
        self.k_proj = nn.Linear(hidden_dim, hidden_dim)
        self.v_proj = nn.Linear(hidden_dim, hidden_dim)
        self.out_proj = nn.Linear(hidden_dim, hidden_dim)
        # The reference initialises the three projections as one D×3D matrix: its Xavier bound is
        # that of a D×D matrix divided by √2.
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.xavier_uniform_(projection.weight, gain=1 / math.sqrt(2))
            nn.init.zeros_(projection.bias)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attend: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attends from T queries to S keys.

        Args:
            query: B×T×D.
            key: B×S×D.
            value: B×S×D.
            attend: B×1×1×S bool, True where a key may be attended to; None: everywhere.

        Returns:
            B×T×D.
        """
        attended = F.scaled_dot_product_attention(
            self._split_heads(self.q_proj(query)),
            self._split_heads(self.k_proj(key)),
            self._split_heads(self.v_proj(value)),
            attn_mask=attend,
            dropout_p=self.dropout if self.training else 0.0,
        )  # B×M×T×D/M
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def _split_heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # B×M×T×D/M


class FeedForward(nn.Sequential):
    """Two linear layers with a ReLU between them."""

    def __init__(self, hidden_dim: int, dim_feedforward: int, dropout: float) -> None:
        first = nn.Linear(hidden_dim, dim_feedforward)
        second = nn.Linear(dim_feedforward, hidden_dim)
        super().__init__(first, nn.ReLU(), nn.Dropout(dropout), second)
        nn.init.xavier_uniform_(first.weight)
        nn.init.xavier_uniform_(second.weight)


class Residual(nn.Module):
    """Layer norm and dropout around each block; the norm comes after it, or before (pre-norm)."""

    def __init__(self, hidden_dim: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm

    def forward(
        self, x: torch.Tensor, block: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Adds the output of a block for …×D to its input."""
        if self.pre_norm:
            return x + self.dropout(block(self.norm(x)))
        return self.norm(x + self.dropout(block(x)))


class EncoderLayer(nn.Module):
    """Self-attention over the grid, then a feed-forward network."""

    def __init__(
        self, hidden_dim: int, num_heads: int, dim_feedforward: int, dropout: float, pre_norm: bool
    ) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(hidden_dim, num_heads, dropout)
        self.feed_forward = FeedForward(hidden_dim, dim_feedforward, dropout)
        self.self_attention_residual = Residual(hidden_dim, dropout, pre_norm)
        self.feed_forward_residual = Residual(hidden_dim, dropout, pre_norm)

    def forward(
        self, x: torch.Tensor, positions: torch.Tensor, attend: torch.Tensor | None
    ) -> torch.Tensor:
        """Maps B×S×D to B×S×D; positions are added to queries and keys, never to values."""

        def attention(x: torch.Tensor) -> torch.Tensor:
            placed = x + positions
            return self.self_attention(placed, placed, x, attend)

        x = self.self_attention_residual(x, attention)
        return self.feed_forward_residual(x, self.feed_forward)


class DecoderLayer(nn.Module):
    """Self-attention among queries, attention to the memory, then a feed-forward network."""

    def __init__(
        self, hidden_dim: int, num_heads: int, dim_feedforward: int, dropout: float, pre_norm: bool
    ) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(hidden_dim, num_heads, dropout)
        self.cross_attention = MultiHeadAttention(hidden_dim, num_heads, dropout)
        self.feed_forward = FeedForward(hidden_dim, dim_feedforward, dropout)
        self.self_attention_residual = Residual(hidden_dim, dropout, pre_norm)
        self.cross_attention_residual = Residual(hidden_dim, dropout, pre_norm)
        self.feed_forward_residual = Residual(hidden_dim, dropout, pre_norm)

    def forward(
        self,
        x: torch.Tensor,
        query_positions: torch.Tensor,
        memory: torch.Tensor,
        memory_keys: torch.Tensor,
        attend: torch.Tensor | None,
    ) -> torch.Tensor:
        """Maps B×Q×D to B×Q×D.

        Args:
            x: B×Q×D, what the layer before left.
            query_positions: B×Q×D, added to queries and keys.
            memory: B×S×D, the values of cross-attention.
            memory_keys: B×S×D, memory plus its positions: the same for every layer.
            attend: B×1×1×S bool, False = padding; None: no padding.
        """

        def attention_to_queries(x: torch.Tensor) -> torch.Tensor:
            placed = x + query_positions
            return self.self_attention(placed, placed, x)

        def attention_to_memory(x: torch.Tensor) -> torch.Tensor:
            return self.cross_attention(x + query_positions, memory_keys, memory, attend)

        x = self.self_attention_residual(x, attention_to_queries)
        x = self.cross_attention_residual(x, attention_to_memory)
        return self.feed_forward_residual(x, self.feed_forward)


@DETR_TRANSFORMER_REGISTRY.register()
class Transformer(DetectorTransformer):
    """Encoder and decoder of DETR (paper, section 3.2 and figure 10)."""

    @configurable
    def __init__(
        self,
        *,
        hidden_dim: int,
        num_heads: int,
        enc_layers: int,
        dec_layers: int,
        dim_feedforward: int,
        dropout: float,
        pre_norm: bool,
    ) -> None:
        """Takes the values of the ``MODEL.DETR`` keys of the same names."""
        super().__init__()
        layer_args = (hidden_dim, num_heads, dim_feedforward, dropout, pre_norm)
        self.encoder_layers = nn.ModuleList(EncoderLayer(*layer_args) for _ in range(enc_layers))
        self.encoder_norm = nn.LayerNorm(hidden_dim) if pre_norm else nn.Identity()
        self.decoder_layers = nn.ModuleList(DecoderLayer(*layer_args) for _ in range(dec_layers))
        self.decoder_norm = nn.LayerNorm(hidden_dim)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        detr = cfg.MODEL.DETR
        return {
            "hidden_dim": detr.HIDDEN_DIM,
            "num_heads": detr.NUM_HEADS,
            "enc_layers": detr.ENC_LAYERS,
            "dec_layers": detr.DEC_LAYERS,
            "dim_feedforward": detr.DIM_FEEDFORWARD,
            "dropout": detr.DROPOUT,
            "pre_norm": detr.PRE_NORM,
        }

    def explained_attention(self) -> dict[str, list[str]]:
        encoder, decoder = len(self.encoder_layers), len(self.decoder_layers)
        return {
            "encoder": [f"encoder_layers.{i}.self_attention" for i in range(encoder)],
            "decoder": [f"decoder_layers.{i}.cross_attention" for i in range(decoder)],
        }

    def forward(
        self,
        features: torch.Tensor,
        padding_mask: torch.Tensor | None,
        positions: torch.Tensor,
        query_embed: torch.Tensor,
        targets: Sequence[Target] | None = None,
    ) -> Transformed:
        """Encodes the images and decodes the queries, see ``DetectorTransformer``."""
        height, width = features.shape[-2:]
        memory = features.flatten(2).transpose(1, 2)  # B×S×D
        positions = positions.flatten(2).transpose(1, 2).to(memory.dtype)  # B×S×D
        attend = None if padding_mask is None else ~padding_mask.flatten(1)[:, None, None]

        for layer in self.encoder_layers:
            memory = layer(memory, positions, attend)
        memory = self.encoder_norm(memory)

        hidden, reference_boxes = self.decode(query_embed, memory, positions, attend)
        memory = memory.transpose(1, 2).unflatten(2, (height, width))  # B×D×h×w
        return Transformed(hidden, memory, reference_boxes)

    def decode(
        self,
        query_embed: torch.Tensor,
        memory: torch.Tensor,
        positions: torch.Tensor,
        attend: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Decodes the queries.

        Args:
            query_embed: Q×D.
            memory: B×S×D.
            positions: B×S×D.
            attend: B×1×1×S bool, False = padding; None: no padding.

        Returns:
            ``hidden`` and ``reference_boxes`` of ``Transformed``; DETR has none of these boxes.
        """
        query_positions = query_embed.expand(memory.shape[0], -1, -1)  # B×Q×D
        memory_keys = memory + positions
        x = torch.zeros_like(query_positions, dtype=memory.dtype)
        hidden = []
        for layer in self.decoder_layers:
            x = layer(x, query_positions, memory, memory_keys, attend)
            hidden.append(self.decoder_norm(x))
        return torch.stack(hidden), None

"""A transformer as a plug-in: conditional queries (Meng et al. 2021, arXiv:2108.06152).

Axes: B images, T queries or S grid points, D width, M heads, L decoder layers.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from detr_d2.modeling import DETR_TRANSFORMER_REGISTRY, Transformer
from detr_d2.modeling.transformer import DecoderLayer, MultiHeadAttention


class SideBySide(nn.Module):
    """Concatenates, in each head, the content and the position of queries or points."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.content, self.position = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, content: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        parts = self.content(content), self.position(position)
        heads = [part.unflatten(2, (self.num_heads, -1)) for part in parts]  # B×T×M×D/M each
        return torch.cat(heads, dim=3).flatten(2)  # B×T×2D


class ConditionalAttention(MultiHeadAttention):
    """Cross-attention whose queries and keys concatenate content and position (section 3.3)."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__(dim, num_heads, dropout)
        self.q_proj, self.k_proj = SideBySide(dim, num_heads), SideBySide(dim, num_heads)

    def forward(self, x, x_position, memory, positions, attend):
        q, k, v = self.q_proj(x, x_position), self.k_proj(memory, positions), self.v_proj(memory)
        heads = (self._split_heads(part) for part in (q, k, v))
        attended = F.scaled_dot_product_attention(*heads, attn_mask=attend)  # B×M×T×D/M
        return self.out_proj(attended.transpose(1, 2).flatten(2))


@DETR_TRANSFORMER_REGISTRY.register()
class ConditionalTransformer(Transformer):
    """DETR's encoder, and a decoder that attends around a reference point of each query."""

    def __init__(self, cfg) -> None:
        super().__init__(cfg)
        dim = cfg.MODEL.DETR.HIDDEN_DIM
        self.point = nn.Linear(dim, 2)
        self.transforms = nn.ModuleList(nn.Linear(dim, dim) for _ in self.decoder_layers)
        for transform, layer in zip(self.transforms, self.decoder_layers, strict=True):
            nn.init.ones_(transform.bias)
            layer.cross_attention = ConditionalAttention(dim, cfg.MODEL.DETR.NUM_HEADS, 0.0)

    def decode(self, query_embed, memory, positions, attend):
        points = self.point(query_embed).sigmoid()  # Q×2
        query_positions = query_embed.expand(memory.shape[0], -1, -1)  # B×Q×D
        x, hidden = torch.zeros_like(query_positions), []
        for layer, transform in zip(self.decoder_layers, self.transforms, strict=True):
            where = transform(x) * sines(points, x.shape[2])  # the conditional spatial query
            x = decode_layer(layer, x, query_positions, where, memory, positions, attend)
            hidden.append(self.decoder_norm(x))
        return torch.stack(hidden), points.expand(len(hidden), memory.shape[0], -1, -1)


def decode_layer(layer: DecoderLayer, x, query_positions, where, memory, positions, attend):
    among = lambda x: layer.self_attention(x + query_positions, x + query_positions, x)  # noqa: E731
    around = lambda x: layer.cross_attention(x, where, memory, positions, attend)  # noqa: E731
    x = layer.cross_attention_residual(layer.self_attention_residual(x, among), around)
    return layer.feed_forward_residual(x, layer.feed_forward)


def sines(points: torch.Tensor, dim: int) -> torch.Tensor:
    """Encodes Q×2 points as Q×D, as ``SinePositionEncoding`` encodes points of the grid."""
    periods = 10000 ** (torch.arange(dim // 4, device=points.device) / (dim // 4))
    phases = points.flip(1)[..., None] * 2 * math.pi / periods  # Q×2×D/4, rows before columns
    return torch.stack([phases.sin(), phases.cos()], dim=-1).flatten(1)


def test_it_trains_predicts_exports_and_is_explained(travel):
    # An untrained encoder makes all points of an image alike; without one, they differ.
    overrides = {"TRANSFORMER_NAME": "ConditionalTransformer", "ENC_LAYERS": 0}
    journey = travel(*(x for key, value in overrides.items() for x in (f"MODEL.DETR.{key}", value)))
    transformer = journey.model.detector.transformer
    assert isinstance(transformer, ConditionalTransformer)
    trained = journey.before["detector.transformer.point.weight"]
    assert torch.equal(transformer.point.weight, trained)  # frozen in the stage "masks"
    assert journey.segments_info and journey.equal_ids > 0.999
    assert "This transformer has no encoder layers" in journey.page
    assert "decoder’s attention is not shown" not in journey.page

"""The transformer against PyTorch's own layers: transformers' DETR has no pre-norm."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detr_d2.modeling.transformer import Transformer

TOLERANCE = 1e-5
D, HEADS, FEED_FORWARD, QUERIES, GRID = 32, 4, 48, 5, (4, 6)
ENCODER_NAMES = {
    "self_attention": "self_attn",
    "self_attention_residual.norm": "norm1",
    "feed_forward.0": "linear1",
    "feed_forward.3": "linear2",
    "feed_forward_residual.norm": "norm2",
}
DECODER_NAMES = {
    **ENCODER_NAMES,
    "cross_attention": "multihead_attn",
    "cross_attention_residual.norm": "norm2",
    "feed_forward_residual.norm": "norm3",
}


class PlacedEncoderLayer(nn.TransformerEncoderLayer):
    """PyTorch's layer, with positions added to queries and keys."""

    def _sa_block(self, x, attn_mask, key_padding_mask, is_causal=False):
        placed = x + self.positions
        return self.self_attn(placed, placed, x, key_padding_mask=key_padding_mask)[0]


class PlacedDecoderLayer(nn.TransformerDecoderLayer):
    """The same, with positions of its own for the memory's keys."""

    def _sa_block(self, x, attn_mask, key_padding_mask, is_causal=False):
        placed = x + self.positions
        return self.self_attn(placed, placed, x)[0]

    def _mha_block(self, x, mem, attn_mask, key_padding_mask, is_causal=False):
        placed, keys = x + self.positions, mem + self.memory_positions
        return self.multihead_attn(placed, keys, mem, key_padding_mask=key_padding_mask)[0]


def with_weights_of(ours: nn.Module, theirs: nn.Module, names: dict[str, str]) -> nn.Module:
    """Copies a layer's weights; PyTorch has queries, keys and values in one matrix."""
    state = {}
    for own, name in names.items():
        module = ours.get_submodule(own)
        if isinstance(theirs.get_submodule(name), nn.MultiheadAttention):
            for kind in ("weight", "bias"):
                projections = (module.q_proj, module.k_proj, module.v_proj)
                joint = torch.cat([getattr(projection, kind) for projection in projections])
                state[f"{name}.in_proj_{kind}"] = joint
                state[f"{name}.out_proj.{kind}"] = getattr(module.out_proj, kind)
        else:
            state.update({f"{name}.{k}": v for k, v in module.state_dict().items()})
    theirs.load_state_dict(state)
    return theirs.eval()


def norm_of(ours: nn.Module) -> nn.LayerNorm:
    theirs = nn.LayerNorm(D)
    theirs.load_state_dict(ours.state_dict())
    return theirs


def pytorchs(ours: Transformer, pre_norm: bool, features, padding_mask, positions, query_embed):
    """What PyTorch's layers make of the same inputs, with the weights of ours."""
    # Sequences first: with batches first, PyTorch would take its fused path, without positions.
    memory, at = (x.flatten(2).permute(2, 0, 1) for x in (features, positions))
    padding = padding_mask.flatten(1)
    sizes = (D, HEADS, FEED_FORWARD)
    for own_layer in ours.encoder_layers:
        layer = PlacedEncoderLayer(*sizes, norm_first=pre_norm)
        layer = with_weights_of(own_layer, layer, ENCODER_NAMES)
        layer.positions = at
        memory = layer(memory, src_key_padding_mask=padding)
    if pre_norm:  # its last layer ends without one
        memory = norm_of(ours.encoder_norm)(memory)
    x, hidden = torch.zeros(QUERIES, len(features), D), []
    for own_layer in ours.decoder_layers:
        layer = PlacedDecoderLayer(*sizes, norm_first=pre_norm)
        layer = with_weights_of(own_layer, layer, DECODER_NAMES)
        layer.positions, layer.memory_positions = query_embed[:, None], at
        x = layer(x, memory, memory_key_padding_mask=padding)
        hidden.append(norm_of(ours.decoder_norm)(x))
    return torch.stack(hidden).transpose(1, 2), memory.permute(1, 2, 0).view_as(features)


@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
@torch.no_grad()
def test_equals_pytorchs_layers(record_parity, pre_norm):
    torch.manual_seed(0)
    model = Transformer(
        hidden_dim=D,
        num_heads=HEADS,
        enc_layers=2,
        dec_layers=3,
        dim_feedforward=FEED_FORWARD,
        dropout=0.1,
        pre_norm=pre_norm,
    ).eval()
    for parameter in model.parameters():  # biases and norms that do something
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    padding_mask = torch.zeros(2, *GRID, dtype=torch.bool)
    padding_mask[1, 3:] = True
    padding_mask[1, :, 4:] = True
    features, positions = torch.randn(2, 2, D, *GRID).unbind()
    inputs = features, padding_mask, positions, torch.randn(QUERIES, D)

    transformed = model(*inputs)
    hidden, memory = transformed.hidden, transformed.memory
    expected_hidden, expected_memory = pytorchs(model, pre_norm, *inputs)
    what = f"{'pre' if pre_norm else 'post'}-norm transformer, PyTorch's layers"
    record_parity(what, (hidden - expected_hidden).abs().max().item(), TOLERANCE)
    valid = ~padding_mask[:, None].expand_as(memory)
    difference = (memory - expected_memory)[valid].abs().max().item()
    record_parity(what, difference, TOLERANCE)

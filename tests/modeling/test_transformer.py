"""The transformer against one made of torch.nn.MultiheadAttention, and its properties."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detr_d2.modeling.transformer import MultiHeadAttention, Transformer

D, HEADS, QUERIES, GRID = 32, 4, 5, (4, 6)
BOTH_NORMS = pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])


def make_transformer(pre_norm: bool = False, **changes) -> Transformer:
    torch.manual_seed(0)
    sizes = dict(enc_layers=2, dec_layers=3, dim_feedforward=48, dropout=0.0)
    model = Transformer(hidden_dim=D, num_heads=HEADS, pre_norm=pre_norm, **{**sizes, **changes})
    for parameter in model.parameters():  # biases and norms that do something
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def make_inputs(padded: bool = True) -> tuple[torch.Tensor, ...]:
    """Features, padding mask, query embeddings and positions; the second image is padded."""
    torch.manual_seed(1)
    mask = torch.zeros(2, *GRID, dtype=torch.bool)
    if padded:
        mask[1, 3:] = True
        mask[1, :, 4:] = True
    features, positions = torch.randn(2, 2, D, *GRID).unbind(0)
    return features, mask, torch.randn(QUERIES, D), positions


def oracle_attention(
    ours: MultiHeadAttention,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    padding: torch.Tensor | None = None,
) -> torch.Tensor:
    projections = (ours.q_proj, ours.k_proj, ours.v_proj)
    theirs = nn.MultiheadAttention(D, HEADS, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([p.weight for p in projections]),
            "in_proj_bias": torch.cat([p.bias for p in projections]),
            "out_proj.weight": ours.out_proj.weight,
            "out_proj.bias": ours.out_proj.bias,
        }
    )
    return theirs(query, key, value, key_padding_mask=padding)[0]


def oracle(model: Transformer, pre_norm: bool, features, mask, query_embed, positions):
    """The transformer of the paper's figure 10, written out."""

    def residual(x, wrapper, block):
        norm = wrapper.norm
        return x + block(norm(x)) if pre_norm else norm(x + block(x))

    def feed_forward(layer, x):
        first, last = layer.feed_forward[0], layer.feed_forward[3]
        inner = F.relu(F.linear(x, first.weight, first.bias))
        return F.linear(inner, last.weight, last.bias)

    memory, at, padding = features.flatten(2).mT, positions.flatten(2).mT, mask.flatten(1)
    for layer in model.encoder_layers:
        memory = residual(
            memory,
            layer.self_attention_residual,
            lambda x, a=layer.self_attention: oracle_attention(a, x + at, x + at, x, padding),
        )
        memory = residual(
            memory, layer.feed_forward_residual, lambda x, la=layer: feed_forward(la, x)
        )
    if pre_norm:
        memory = F.layer_norm(memory, (D,), model.encoder_norm.weight, model.encoder_norm.bias)

    x, place, hidden = torch.zeros(2, QUERIES, D), query_embed[None], []
    for layer in model.decoder_layers:
        x = residual(
            x,
            layer.self_attention_residual,
            lambda x, a=layer.self_attention: oracle_attention(a, x + place, x + place, x),
        )
        x = residual(
            x,
            layer.cross_attention_residual,
            lambda x, a=layer.cross_attention: oracle_attention(
                a, x + place, memory + at, memory, padding
            ),
        )
        x = residual(x, layer.feed_forward_residual, lambda x, la=layer: feed_forward(la, x))
        hidden.append(F.layer_norm(x, (D,), model.decoder_norm.weight, model.decoder_norm.bias))
    return torch.stack(hidden), memory.mT.unflatten(2, GRID)


@BOTH_NORMS
@torch.no_grad()
def test_equals_one_of_torchs_attention(pre_norm):
    model, inputs = make_transformer(pre_norm).eval(), make_inputs()
    hidden, memory = model(*inputs)
    expected_hidden, expected_memory = oracle(model, pre_norm, *inputs)
    assert hidden.shape == (3, 2, QUERIES, D)
    assert memory.shape == (2, D, *GRID)
    valid = ~inputs[1][:, None].expand_as(memory)
    torch.testing.assert_close(memory[valid], expected_memory[valid], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hidden, expected_hidden, rtol=1e-5, atol=1e-5)


@BOTH_NORMS
@torch.no_grad()
def test_what_lies_under_the_padding_is_never_seen(pre_norm):
    model = make_transformer(pre_norm).eval()
    features, mask, query_embed, positions = make_inputs()
    hidden, memory = model(features, mask, query_embed, positions)
    under_padding = mask[:, None] * 100.0
    other = model(features + under_padding, mask, query_embed, positions - under_padding)
    valid = ~mask[:, None].expand_as(memory)
    torch.testing.assert_close(other[0], hidden, rtol=0, atol=1e-6)
    torch.testing.assert_close(other[1][valid], memory[valid], rtol=0, atol=1e-6)
    assert not torch.allclose(other[1], memory)


@BOTH_NORMS
@torch.no_grad()
def test_padded_batch_gives_what_each_image_gives_alone(pre_norm):
    model = make_transformer(pre_norm).eval()
    features, mask, query_embed, positions = make_inputs()
    hidden, memory = model(features, mask, query_embed, positions)
    for i, (height, width) in enumerate([GRID, (3, 4)]):
        part = (slice(i, i + 1), slice(None), slice(height), slice(width))
        alone = model(features[part], None, query_embed, positions[part])
        torch.testing.assert_close(hidden[:, i], alone[0][:, 0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(memory[part], alone[1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_mask_without_padding_is_no_mask():
    model = make_transformer().eval()
    features, mask, query_embed, positions = make_inputs(padded=False)
    with_mask = model(features, mask, query_embed, positions)
    without = model(features, None, query_embed, positions)
    for actual, expected in zip(with_mask, without, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_positions_reach_queries_and_keys_but_not_values():
    """With equal scores everywhere, attention is a mean of values, wherever things are."""
    model = make_transformer().eval()
    for name, module in model.named_modules():
        if name.endswith("q_proj"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    features, mask, query_embed, positions = make_inputs()
    placed = model(features, mask, query_embed, positions)
    nowhere = model(features, mask, query_embed * 0, positions * 0)
    for actual, expected in zip(placed, nowhere, strict=True):
        assert torch.equal(actual, expected)


@torch.no_grad()
@pytest.mark.parametrize("which", ["query_embed", "positions"])
def test_positions_matter(which):
    model = make_transformer().eval()
    names = ("features", "padding_mask", "query_embed", "positions")
    inputs = dict(zip(names, make_inputs(), strict=True))
    hidden, _ = model(**inputs)
    assert not torch.allclose(hidden, model(**{**inputs, which: -inputs[which]})[0], atol=1e-2)


@BOTH_NORMS
@torch.no_grad()
def test_one_norm_serves_all_decoder_layers(pre_norm):
    model = make_transformer(pre_norm)
    nn.init.zeros_(model.decoder_norm.weight)
    nn.init.constant_(model.decoder_norm.bias, 7.0)
    assert (model(*make_inputs())[0] == 7).all()


@torch.no_grad()
def test_encoder_has_a_last_norm_only_when_pre_norm():
    inputs = make_inputs()
    assert torch.equal(make_transformer(pre_norm=False, enc_layers=0)(*inputs)[1], inputs[0])
    pre_norm = make_transformer(pre_norm=True, enc_layers=0)
    expected = pre_norm.encoder_norm(inputs[0].movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(pre_norm(*inputs)[1], expected, rtol=1e-6, atol=1e-6)


@BOTH_NORMS
@torch.no_grad()
def test_dropout_acts_in_training_alone(pre_norm):
    model, inputs = make_transformer(pre_norm, dropout=0.5), make_inputs()
    assert not torch.allclose(model(*inputs)[0], model(*inputs)[0])
    without = make_transformer(pre_norm, dropout=0.0)
    without.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(*inputs)[0], without(*inputs)[0])


def test_attention_weights_are_dropped_in_training():
    torch.manual_seed(0)
    attention, x = MultiHeadAttention(D, HEADS, dropout=0.5), torch.randn(1, 6, D)
    assert not torch.allclose(attention(x, x, x), attention(x, x, x))
    assert torch.equal(attention.eval()(x, x, x), attention(x, x, x))


def test_attention_starts_as_one_xavier_matrix_of_all_three_projections():
    torch.manual_seed(0)
    attention = MultiHeadAttention(64, HEADS, dropout=0.0)
    bound = (6 / (64 + 3 * 64)) ** 0.5
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        assert 0.99 * bound < projection.weight.abs().max() <= bound
        assert not projection.bias.any()

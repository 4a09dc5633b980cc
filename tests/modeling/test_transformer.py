"""Properties of the transformer. Parity with PyTorch's layers is shown in tests/parity."""

from __future__ import annotations

import pytest
import torch
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
    """Features, padding mask, positions and query embeddings; the second image is padded."""
    torch.manual_seed(1)
    mask = torch.zeros(2, *GRID, dtype=torch.bool)
    if padded:
        mask[1, 3:] = True
        mask[1, :, 4:] = True
    features, positions = torch.randn(2, 2, D, *GRID).unbind(0)
    query_embed = torch.randn(QUERIES, D)
    return features, mask, positions, query_embed


def run(model: Transformer, *inputs: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The hidden states and the memory."""
    transformed = model(*inputs)
    return transformed.hidden, transformed.memory


@BOTH_NORMS
@torch.no_grad()
def test_what_lies_under_the_padding_is_never_seen(pre_norm):
    model = make_transformer(pre_norm).eval()
    features, mask, positions, query_embed = make_inputs()
    hidden, memory = run(model, features, mask, positions, query_embed)
    under_padding = mask[:, None] * 100.0
    other = run(model, features + under_padding, mask, positions - under_padding, query_embed)
    valid = ~mask[:, None].expand_as(memory)
    torch.testing.assert_close(other[0], hidden, rtol=0, atol=1e-6)
    torch.testing.assert_close(other[1][valid], memory[valid], rtol=0, atol=1e-6)
    assert not torch.allclose(other[1], memory)


@BOTH_NORMS
@torch.no_grad()
def test_padded_batch_gives_what_each_image_gives_alone(pre_norm):
    model = make_transformer(pre_norm).eval()
    features, mask, positions, query_embed = make_inputs()
    hidden, memory = run(model, features, mask, positions, query_embed)
    for i, (height, width) in enumerate([GRID, (3, 4)]):
        part = (slice(i, i + 1), slice(None), slice(height), slice(width))
        alone = run(model, features[part], None, positions[part], query_embed)
        torch.testing.assert_close(hidden[:, i], alone[0][:, 0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(memory[part], alone[1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_mask_without_padding_is_no_mask():
    model = make_transformer().eval()
    features, mask, positions, query_embed = make_inputs(padded=False)
    with_mask = run(model, features, mask, positions, query_embed)
    without = run(model, features, None, positions, query_embed)
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
    features, mask, positions, query_embed = make_inputs()
    placed = run(model, features, mask, positions, query_embed)
    nowhere = run(model, features, mask, positions * 0, query_embed * 0)
    for actual, expected in zip(placed, nowhere, strict=True):
        assert torch.equal(actual, expected)


@torch.no_grad()
@pytest.mark.parametrize("which", ["query_embed", "positions"])
def test_positions_matter(which):
    model = make_transformer().eval()
    names = ("features", "padding_mask", "positions", "query_embed")
    inputs = dict(zip(names, make_inputs(), strict=True))
    hidden = model(**inputs).hidden
    other = model(**{**inputs, which: -inputs[which]}).hidden
    assert not torch.allclose(hidden, other, atol=1e-2)


@BOTH_NORMS
@torch.no_grad()
def test_one_norm_serves_all_decoder_layers(pre_norm):
    model = make_transformer(pre_norm)
    nn.init.zeros_(model.decoder_norm.weight)
    nn.init.constant_(model.decoder_norm.bias, 7.0)
    assert (model(*make_inputs()).hidden == 7).all()


@torch.no_grad()
def test_encoder_has_a_last_norm_only_when_pre_norm():
    inputs = make_inputs()
    assert torch.equal(make_transformer(pre_norm=False, enc_layers=0)(*inputs).memory, inputs[0])
    pre_norm = make_transformer(pre_norm=True, enc_layers=0)
    expected = pre_norm.encoder_norm(inputs[0].movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(pre_norm(*inputs).memory, expected, rtol=1e-6, atol=1e-6)


@BOTH_NORMS
@torch.no_grad()
def test_dropout_acts_in_training_alone(pre_norm):
    model, inputs = make_transformer(pre_norm, dropout=0.5), make_inputs()
    assert not torch.allclose(model(*inputs).hidden, model(*inputs).hidden)
    without = make_transformer(pre_norm, dropout=0.0)
    without.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(*inputs).hidden, without(*inputs).hidden)


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

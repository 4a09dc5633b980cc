"""Recomputed attention weights are those by which the module itself mixed its values."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_d2.apps.explain.hook_recording import output_of, recording
from detr_d2.apps.explain.recorded_attention import RecordedAttention
from detr_d2.modeling.transformer import MultiHeadAttention


@settings(deadline=None, database=None, max_examples=30)
@given(
    heads=st.sampled_from([1, 2, 4]),
    rows=st.integers(1, 5),
    points=st.integers(1, 9),
    padded=st.integers(0, 8),
    seed=st.integers(0, 99),
)
def test_weights_reproduce_the_output_of_the_module(heads, rows, points, padded, seed):
    torch.manual_seed(seed)
    module = MultiHeadAttention(8, heads, dropout=0.3).eval()
    query, key, value = (3 * torch.randn(1, n, 8) for n in (rows, points, points))
    padding = torch.arange(points) >= max(1, points - padded)
    names = ("q_proj", "k_proj", "v_proj")
    with torch.no_grad(), recording(module, dict.fromkeys(names, output_of)) as calls:
        output = module(query, key, value, ~padding[None, None, None])[0]
    q, k, v = (calls[name][0][0] for name in names)

    weights = RecordedAttention("", q, k, heads, padding).weights()
    assert weights.shape == (heads, rows, points)
    torch.testing.assert_close(weights.sum(-1), torch.ones(heads, rows))
    assert not weights[:, :, padding].any()
    mixed = weights @ v.unflatten(1, (heads, -1)).transpose(0, 1)  # M×T×D/M
    with torch.no_grad():
        again = module.out_proj(mixed.transpose(0, 1).flatten(1))
    torch.testing.assert_close(again, output, atol=1e-5, rtol=1e-5)


def test_some_rows_are_those_of_all():
    torch.manual_seed(0)
    attention = RecordedAttention(
        "", torch.randn(6, 8), torch.randn(4, 8), 2, torch.zeros(4, dtype=torch.bool)
    )
    some = torch.tensor([5, 0, 5])
    torch.testing.assert_close(attention.weights(some), attention.weights()[:, some])

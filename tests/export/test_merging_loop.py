"""Merging in tensors alone gives what ``merge_panoptic`` gives; likewise its smaller parts.

Axes: n queries; h×w the mask logits, H×W the network's input.
"""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from detr_d2.export.merging_loop import counts, nearest_pixels, resolve_overlaps
from detr_d2.modeling import upsampling
from detr_d2.modeling.exported_attention_head import DoublingConv
from detr_d2.modeling.inference import QuerySelection
from detr_d2.modeling.inference_options import PanopticOptions
from detr_d2.modeling.merging import merge_panoptic
from detr_d2.modeling.upsampled_conv import conv3x3_upsampled
from detr_d2.modeling.upsampling import ImageSizes, UpsampledMasks

KEEP = settings(
    deadline=None,
    database=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
IS_THING = torch.tensor([True, True, False, False])


@pytest.mark.parametrize("merging", ["reference", "merged"])
@KEEP
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 7),
    output=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    min_area=st.sampled_from([0, 4, 60, 300]),
)
def test_merging_equals_that_of_the_model(plain_while_loop, merging, seed, n, output, min_area):
    rng = torch.Generator().manual_seed(seed)
    network = (23, 18)
    logits = torch.randn(n, 6, 5, generator=rng) + torch.randn(n, 1, 1, generator=rng)
    classes = torch.randint(4, (n,), generator=rng)
    selection = QuerySelection(torch.arange(n), classes, torch.rand(n, generator=rng))
    sizes = ImageSizes(network, network, output)
    # Two ways to upsample round differently: where two masks are as good as equal, either may win.
    (_, at_pixels), *none = UpsampledMasks(logits, sizes).strips(torch.arange(output[0]))
    assert not none
    assume(n == 1 or at_pixels.sort(0).values.diff(dim=0).min() > 1e-5)
    expected, segments = merge_panoptic(
        selection,
        logits,
        IS_THING,
        sizes,
        options := PanopticOptions(0.0, merging, min_area),
    )

    rows, columns = (
        nearest_pixels(old, torch.tensor(new), new)
        for old, new in zip(network, output, strict=True)
    )
    competing = torch.ones(n, dtype=torch.bool)
    segment_of = options.rule.segments(classes, IS_THING[classes], competing)
    winner, areas, alive = resolve_overlaps(
        logits,
        competing,
        segment_of,
        options,
        counts(rows, network[0]),
        counts(columns, network[1]),
    )
    first = alive & (segment_of == torch.arange(n))
    assert areas[first].tolist() == [s["area"] for s in segments]
    assert classes[first].tolist() == [s["category_id"] for s in segments]
    ids = (first.cumsum(0) * first)[segment_of][winner][rows][:, columns]
    assert torch.equal(ids.int(), expected)


@KEEP
@given(old=st.integers(1, 1500), new=st.integers(1, 1500))
def test_nearest_pixels(old, new):
    expected = upsampling.nearest_pixels(old, new)
    assert torch.equal(nearest_pixels(old, torch.tensor(new), new), expected)


@pytest.mark.parametrize("size", [(8, 10), (7, 10), (8, 9), (7, 9), (1, 2), (2, 1), (1, 1)])
def test_doubling_conv(size):
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, 3, 3, generator=rng)
    x = torch.randn(2, 3, *((side + 1) // 2 for side in size), generator=rng)
    expected = conv3x3_upsampled(x, weight, size)
    np.testing.assert_allclose(DoublingConv(weight)(x, size), expected, atol=1e-5)

"""Parts that torch.compile takes whole, without graph breaks; traced here, with no compiler."""

from __future__ import annotations

import pytest
import torch

from detr_d2.modeling.upsampled_conv import conv3x3_upsampled

# Shallow, since tracing takes its time.
SHALLOW = {
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.DETR.ENC_LAYERS": 1,
    "MODEL.DETR.DEC_LAYERS": 1,
    "MODEL.DETR.MASK_HEAD.CHUNK_SIZE": 4,
}
SIZE = (75, 98)  # grids of even and of odd sides


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(function):
    return torch.compile(function, backend="aot_eager", fullgraph=True)


def assert_equal(actual, expected) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_backbone_with_weights_that_change_later(tiny_model):
    """Folded batch norms are not constants of the compiled graph."""
    backbone = tiny_model(SHALLOW).detector.backbone.eval()
    x, fast = torch.randn(1, 3, *SIZE), compiled(backbone)
    before = fast(x)
    assert_equal(before, backbone(x))
    for changed in (backbone.res2[0].conv1.norm.running_mean, backbone.res5[0].conv1.weight.data):
        changed.add_(0.3)
        after = fast(x)
        assert not torch.allclose(after["res5"], before["res5"], atol=1e-3)
        assert_equal(after, backbone(x))
        before = after


@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_transformer(tiny_model, padded):
    detector = tiny_model(SHALLOW).detector.eval()
    mask = torch.zeros(2, 4, 5, dtype=torch.bool)
    mask[1, :, 3:] = padded
    inputs = (
        torch.randn(2, 32, 4, 5),
        mask if padded else None,
        detector.position_encoding(mask),
        detector.query_embed.weight,
    )
    fast, slow = compiled(detector.transformer)(*inputs), detector.transformer(*inputs)
    assert_equal((fast.hidden, fast.memory), (slow.hidden, slow.memory))


@torch.no_grad()
def test_mask_heads_convolutions(tiny_model, make_batch):
    model = tiny_model(SHALLOW).eval()
    detected = model.detector(model.preprocess(make_batch(SIZE)))
    attention = torch.rand(7, 4, *detected.projected.shape[-2:])
    inputs = (detected.projected, attention, detected.features[-2::-1], torch.zeros(7).long())
    assert_equal(compiled(model.mask_head.upsample)(*inputs), model.mask_head.upsample(*inputs))


@pytest.mark.parametrize("size", [(8, 10), (7, 9), (4, 5)])
def test_upsampled_convolution(size):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    results = []
    for function in (compiled(conv3x3_upsampled), conv3x3_upsampled):
        y = function(x, weight, size)
        results.append((y, *torch.autograd.grad(y.square().sum(), (x, weight))))
    assert_equal(*results)


@torch.no_grad()
def test_pixel_embedding(tiny_model, make_batch):
    """``mask_head.compile()`` compiles what takes the time, in one graph for any queries."""
    model = tiny_model({**SHALLOW, "MODEL.DETR.MASK_HEAD.NAME": "PixelEmbeddingMaskHead"}).eval()
    detected = model.detector(model.preprocess(make_batch(SIZE)))
    chosen = [(torch.zeros(n, dtype=torch.int64), torch.arange(n)) for n in (3, 5)]
    expected = [model.masks_of(detected, *pairs) for pairs in chosen]
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    model.mask_head.compile(backend=backend, fullgraph=True)
    for pairs, masks in zip(chosen, expected, strict=True):
        assert_equal(model.masks_of(detected, *pairs), masks)
    assert len(graphs) == 1

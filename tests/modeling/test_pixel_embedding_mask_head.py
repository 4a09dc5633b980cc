"""The mask head that embeds pixels, against a plain computation of every query of every image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detr_d2.modeling import DETR_MASK_HEAD_REGISTRY, MaskHead, PixelEmbeddingMaskHead
from detr_d2.modeling.pixel_embedding import ChannelNorm

D, C, IMAGES, QUERIES = 32, 8, 3, 6
LATERAL_CHANNELS = (24, 12, 10)
GRIDS = {
    "odd sides": [(3, 4), (5, 7), (10, 13), (19, 25)],
    "doubled": [(2, 3), (4, 6), (8, 12), (16, 24)],
    "dilated res5": [(5, 7), (5, 7), (10, 13), (19, 25)],
    "one pixel": [(1, 1), (1, 2), (1, 3), (2, 6)],
}
# Not in the order of the images, and nothing of the second image.
PAIRS = torch.tensor([2, 0, 2, 0, 2]), torch.tensor([4, 0, 2, 4, 4])


def make_pixel_head(depth: int = 1, checkpointing: bool = False) -> PixelEmbeddingMaskHead:
    torch.manual_seed(0)
    head = PixelEmbeddingMaskHead(
        hidden_dim=D,
        lateral_channels=LATERAL_CHANNELS,
        width=C,
        depth=depth,
        checkpointing=checkpointing,
    )
    for parameter in head.parameters():  # biases and norms that do something
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, -1, 1)
    return head


def make_inputs(grids: list[tuple[int, int]], padded: bool = True) -> dict:
    """Of the three images, the first has padding on its right and the last below it."""
    torch.manual_seed(1)
    padding_mask = torch.zeros(IMAGES, *grids[0], dtype=torch.bool)
    if padded and grids[0][1] > 1:
        padding_mask[0, :, -1] = True
    if padded and grids[0][0] > 1:
        padding_mask[2, 1:] = True
    return {
        "queries": torch.randn(IMAGES, QUERIES, D),
        "memory": torch.randn(IMAGES, D, *grids[0]),
        "projected": torch.randn(IMAGES, D, *grids[0]),
        "laterals": [
            torch.randn(IMAGES, channels, *grid)
            for channels, grid in zip(LATERAL_CHANNELS, grids[1:], strict=True)
        ],
        "padding_mask": padding_mask,
    }


def chosen(pairs: tuple[torch.Tensor, torch.Tensor]) -> dict:
    return dict(zip(("image_index", "query_index"), pairs, strict=True))


def plain_places(x: torch.Tensor, inputs: dict) -> torch.Tensor:
    """Rows and columns of pixels: an image goes from -1 to 1, by the cells that it covers."""
    places = x.new_zeros(len(x), 2, *x.shape[2:])
    for place, mask in zip(places, inputs["padding_mask"], strict=True):
        rows, columns = (~mask[:, 0]).sum().item(), (~mask[0]).sum().item()
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                row = (i + 0.5) * mask.shape[0] / x.shape[2]  # in cells of the grid
                column = (j + 0.5) * mask.shape[1] / x.shape[3]
                place[0, i, j], place[1, i, j] = 2 * row / rows - 1, 2 * column / columns - 1
    return places


def plain_masks(head: PixelEmbeddingMaskHead, inputs: dict) -> torch.Tensor:
    """B×Q×H/4×W/4 by the formula, one pixel's dot product after the other."""
    pixel, query = head.pixel_embedding, head.query_embedding

    def conv(module, x):
        return F.conv2d(x, module.weight, module.bias, padding=module.weight.shape[-1] // 2)

    def block(x, modules):
        for i in range(0, len(modules), 3):
            x, norm = conv(modules[i], x), modules[i + 1]
            mean, variance = x.mean(1, keepdim=True), x.var(1, correction=0, keepdim=True)
            x = (x - mean) / (variance + norm.eps).sqrt()
            x = (x * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
        return x

    x = conv(pixel.projected_conv, inputs["projected"]) + conv(pixel.memory_conv, inputs["memory"])
    x = block(x, pixel.blocks[0])
    for i, lateral in enumerate(inputs["laterals"]):
        side = conv(pixel.lateral_convs[i], lateral)
        x = block(F.interpolate(x, size=side.shape[-2:]) + side, pixel.blocks[i + 1])
    x = conv(pixel.output_conv, torch.cat([x, plain_places(x, inputs)], dim=1))
    embedded = inputs["queries"]
    for i, layer in enumerate(query.layers):
        embedded = embedded @ layer.weight.T + layer.bias
        embedded = embedded.clamp(min=0) if i < 2 else embedded
    return (embedded[:, :, :, None, None] * x[:, None]).sum(2)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
@torch.no_grad()
def test_masks_are_those_of_the_plain_computation(grids, depth):
    head, inputs = make_pixel_head(depth), make_inputs(grids)
    expected = plain_masks(head, inputs)[PAIRS]
    torch.testing.assert_close(head(**inputs, **chosen(PAIRS)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
@torch.no_grad()
def test_without_padding_and_exported(grids):
    head, inputs = make_pixel_head(), make_inputs(grids, padded=False)
    expected = plain_masks(head, inputs)
    del inputs["padding_mask"]
    exported = head.exported((32, 16, 8, 4))(**inputs)
    torch.testing.assert_close(exported, expected, atol=1e-5, rtol=1e-5)
    masks = head(**inputs, padding_mask=None, **chosen(PAIRS))
    torch.testing.assert_close(masks, expected[PAIRS], atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_the_plain_computation():
    """In double precision, so that a ReLU at zero doesn't decide otherwise by rounding."""
    head, inputs = make_pixel_head().double(), make_inputs(GRIDS["odd sides"])
    inputs = {
        name: [x.double() for x in value] if name == "laterals" else value
        for name, value in inputs.items()
    }
    inputs |= {name: inputs[name].double() for name in ("queries", "memory", "projected")}
    parameters = list(head.parameters())
    weights = torch.rand(len(PAIRS[0]), *GRIDS["odd sides"][-1], dtype=torch.float64)
    ours = torch.autograd.grad((head(**inputs, **chosen(PAIRS)) * weights).sum(), parameters)
    plain = torch.autograd.grad((plain_masks(head, inputs)[PAIRS] * weights).sum(), parameters)
    assert all(gradient.any() for gradient in ours)
    torch.testing.assert_close(ours, plain)


def test_checkpointing_changes_no_gradient():
    inputs, results = make_inputs(GRIDS["odd sides"]), []
    for checkpointing in (False, True):
        head = make_pixel_head(checkpointing=checkpointing)
        head(**inputs, **chosen(PAIRS)).square().sum().backward()
        results.append([parameter.grad for parameter in head.parameters()])
    torch.testing.assert_close(*results, rtol=0, atol=0)


@torch.no_grad()
def test_pixels_are_embedded_once_for_several_questions():
    head, inputs = make_pixel_head(), make_inputs(GRIDS["odd sides"])
    calls: list[torch.Size] = []
    head.pixel_embedding.register_forward_hook(lambda _m, _a, pixels: calls.append(pixels.shape))
    expected = head(**inputs, **chosen(PAIRS))
    calls.clear()
    queries = inputs.pop("queries")
    masks_of = head.for_images(**inputs)
    first, second = (
        masks_of(queries=queries, **chosen((PAIRS[0][part], PAIRS[1][part])))
        for part in (slice(0, 2), slice(2, None))
    )
    assert calls == [(IMAGES, C, *GRIDS["odd sides"][-1])]
    torch.testing.assert_close(torch.cat([first, second]), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_no_tensor_has_the_size_of_all_queries_and_channels(record_operations):
    """The product is one of matrices: nothing of queries × channels × pixels is ever made."""
    head, inputs = make_pixel_head(), make_inputs(GRIDS["odd sides"])
    every = (torch.arange(IMAGES).repeat_interleave(QUERIES), torch.arange(QUERIES).repeat(IMAGES))
    with record_operations() as operations:
        head(**inputs, **chosen(every))
    height, width = GRIDS["odd sides"][-1]
    assert operations.largest() <= IMAGES * max(QUERIES, C, *LATERAL_CHANNELS) * height * width


@torch.no_grad()
def test_no_query_gives_no_mask():
    head, inputs = make_pixel_head(), make_inputs(GRIDS["odd sides"])
    none = torch.zeros(0, dtype=torch.int64)
    assert head(**inputs, **chosen((none, none))).shape == (0, *GRIDS["odd sides"][-1])


@torch.no_grad()
def test_a_pixels_norm_sees_that_pixel_alone():
    norm, x = ChannelNorm(C), torch.randn(2, C, 4, 5)
    changed = x.clone()
    changed[:, :, :, 3:] = 100
    torch.testing.assert_close(norm(changed)[..., :3], norm(x)[..., :3], rtol=0, atol=0)


def test_it_is_registered_and_built_from_its_keys(tiny_model):
    assert issubclass(DETR_MASK_HEAD_REGISTRY.get("PixelEmbeddingMaskHead"), MaskHead)
    head = tiny_model(
        {
            "MODEL.DETR.MASK_HEAD.NAME": "PixelEmbeddingMaskHead",
            "MODEL.DETR.MASK_HEAD.WIDTH": 16,
            "MODEL.DETR.MASK_HEAD.DEPTH": 2,
            "MODEL.DETR.MASK_HEAD.CHECKPOINTING": True,
        }
    ).mask_head
    assert head.pixel_embedding.output_conv.out_channels == 16
    assert head.query_embedding.layers[-1].out_features == 16
    assert len(head.pixel_embedding.norms) == 2 * 4
    assert head.checkpointing

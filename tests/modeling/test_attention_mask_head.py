"""The mask head: attention maps, and the convolutions, against plain and slow versions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detr_d2.modeling import DETR_MASK_HEAD_REGISTRY, AttentionMaskHead, MaskHead
from detr_d2.modeling.attention_mask_head import AttentionMap

D, HEADS, IMAGES, QUERIES = 32, 4, 2, 6
LATERAL_CHANNELS = (24, 12, 10)
# As an image of 75×98 has them: no grid is exactly twice the next.
GRIDS = [(3, 4), (5, 7), (10, 13), (19, 25)]
OTHER_GRIDS = {
    "doubled": [(2, 3), (4, 6), (8, 12), (16, 24)],
    "one side odd": [(3, 3), (6, 5), (11, 10), (22, 19)],
    "dilated res5": [(5, 7), (5, 7), (10, 13), (19, 25)],
    "one pixel": [(1, 1), (1, 2), (1, 3), (2, 6)],
    "of another backbone": [(3, 4), (7, 9), (10, 30), (10, 31)],
}
PAIRS = torch.tensor([1, 0, 1, 1, 0]), torch.tensor([4, 0, 2, 4, 5])
BOTH_SOFTMAXES = pytest.mark.parametrize("softmax", ["joint", "per_head"])


@pytest.fixture
def make_attentive_head(make_head: Callable[..., AttentionMaskHead]) -> Callable[..., nn.Module]:
    """Attention is small where it sums to one over all: let it count, so that queries differ."""

    def make(softmax: str = "joint") -> AttentionMaskHead:
        head = make_head(softmax)
        head.input_conv.weight.data[:, D:] *= 20
        return head

    return make


def make_inputs(grids=GRIDS) -> dict:
    """Everything but the chosen pairs; the second image is padded."""
    torch.manual_seed(1)
    padding_mask = torch.zeros(IMAGES, *grids[0], dtype=torch.bool)
    padding_mask[1, :, -1] = True
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


def slow_attention(module: AttentionMap, inputs: dict, joint: bool) -> torch.Tensor:
    """The reference's attention map: B×Q×M×h×w."""
    q = F.linear(inputs["queries"], module.q_proj.weight, module.q_proj.bias)
    k = F.conv2d(inputs["memory"], module.k_proj.weight[..., None, None], module.k_proj.bias)
    q = q.view(IMAGES, QUERIES, HEADS, D // HEADS) * (D / HEADS) ** -0.5
    k = k.view(IMAGES, HEADS, D // HEADS, *k.shape[-2:])
    logits = torch.einsum("bqnc,bnchw->bqnhw", q, k)
    logits = logits.masked_fill(inputs["padding_mask"][:, None, None], float("-inf"))
    return logits.flatten(2 if joint else 3).softmax(-1).view_as(logits)


def slow_masks(head: AttentionMaskHead, inputs: dict, attention: torch.Tensor) -> torch.Tensor:
    """The reference's convolution head, for all queries of all images: B×Q×H/4×W/4."""

    def repeat(x):  # B×C×h×w to B·Q×C×h×w
        return x[:, None].expand(-1, QUERIES, -1, -1, -1).flatten(0, 1)

    def conv(module, x):
        return F.conv2d(x, module.weight, module.bias, padding=module.weight.shape[-1] // 2)

    def norm(module, x):
        return F.group_norm(x, module.num_groups, module.weight, module.bias)

    x = torch.cat([repeat(inputs["projected"]), attention.flatten(0, 1)], dim=1)
    x = norm(head.input_norm, conv(head.input_conv, x)).relu()
    x = norm(head.norms[0], conv(head.convs[0], x)).relu()
    for i, feature in enumerate(inputs["laterals"]):
        lateral = repeat(conv(head.laterals[i], feature))
        x = lateral + F.interpolate(x, size=lateral.shape[-2:], mode="nearest")
        x = norm(head.norms[i + 1], conv(head.convs[i + 1], x)).relu()
    return conv(head.output_conv, x).view(IMAGES, QUERIES, *x.shape[-2:])


@BOTH_SOFTMAXES
@torch.no_grad()
def test_attention_equals_the_plain_one(make_attentive_head, softmax):
    module, inputs = make_attentive_head(softmax).attention_map, make_inputs()
    actual = module(inputs["queries"], inputs["memory"], inputs["padding_mask"])
    expected = slow_attention(module, inputs, joint=softmax == "joint")
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@BOTH_SOFTMAXES
@torch.no_grad()
def test_attention_sums_to_one_outside_padding(make_attentive_head, softmax):
    inputs = make_inputs()
    attention = make_attentive_head(softmax).attention_map(
        inputs["queries"], inputs["memory"], inputs["padding_mask"]
    )
    assert attention.shape == (IMAGES, QUERIES, HEADS, *GRIDS[0])
    sums = attention.flatten(2 if softmax == "joint" else 3).sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-6)
    padding = inputs["padding_mask"][:, None, None].expand_as(attention)
    assert (attention[padding] == 0).all()
    assert (attention[~padding] > 0).all()


@BOTH_SOFTMAXES
@torch.no_grad()
def test_masks_equal_the_plain_version(make_attentive_head, softmax):
    head, inputs = make_attentive_head(softmax), make_inputs()
    actual = head(**inputs, image_index=PAIRS[0], query_index=PAIRS[1])
    attention = slow_attention(head.attention_map, inputs, joint=softmax == "joint")
    assert actual.shape == (len(PAIRS[0]), *GRIDS[-1])
    expected = slow_masks(head, inputs, attention)[PAIRS]
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(actual[0], actual[2], atol=0.01)  # queries differ


@pytest.mark.parametrize("grids", OTHER_GRIDS.values(), ids=OTHER_GRIDS)
@torch.no_grad()
def test_masks_equal_the_plain_version_on_other_grids(make_attentive_head, grids):
    head, inputs = make_attentive_head(), make_inputs(grids)
    inputs["padding_mask"].zero_()  # where the grid is a pixel, it is not all padding
    actual = head(**inputs, image_index=PAIRS[0], query_index=PAIRS[1])
    attention = slow_attention(head.attention_map, inputs, joint=True)
    expected = slow_masks(head, inputs, attention)[PAIRS]
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_no_padding_mask_is_one_without_padding(make_attentive_head):
    head, inputs = make_attentive_head(), make_inputs()
    pairs = {"image_index": PAIRS[0], "query_index": PAIRS[1]}
    inputs["padding_mask"].zero_()
    expected = head(**inputs, **pairs)
    inputs["padding_mask"] = None
    torch.testing.assert_close(head(**inputs, **pairs), expected, rtol=0, atol=0)


@torch.no_grad()
def test_a_mask_does_not_depend_on_the_others_asked_for(make_attentive_head):
    head, inputs = make_attentive_head(), make_inputs()
    together = head(**inputs, image_index=PAIRS[0], query_index=PAIRS[1])
    for i, (image, query) in enumerate(zip(*PAIRS, strict=True)):
        alone = head(**inputs, image_index=image[None], query_index=query[None])[0]
        torch.testing.assert_close(alone, together[i], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_one_query_has_a_mask_where_there_is_one_pixel(make_head):
    """Some groups of its norms have one value, which is their mean."""
    inputs = make_inputs([(1, 1)] * 4)
    inputs["padding_mask"] = None
    pairs = {"image_index": torch.tensor([0, 0, 1]), "query_index": torch.tensor([3, 1, 2])}
    expected = make_head()(**inputs, **pairs)
    assert expected.shape == (3, 1, 1)
    torch.testing.assert_close(make_head(chunk_size=1)(**inputs, **pairs), expected)


@pytest.mark.parametrize("training", [False, True])
def test_no_queries_give_no_masks_and_zero_gradients(make_attentive_head, training):
    head, inputs = make_attentive_head().train(training), make_inputs()
    nothing = torch.zeros(0, dtype=torch.int64)
    masks = head(**inputs, image_index=nothing, query_index=nothing)
    assert masks.shape == (0, *GRIDS[-1])
    masks.sum().backward()
    for name, parameter in head.named_parameters():
        # Not None: distributed training waits for every gradient.
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


def test_gradients_reach_every_parameter_and_only_the_chosen_queries(make_attentive_head):
    head, inputs = make_attentive_head(), make_inputs()
    inputs["queries"].requires_grad_()
    masks = head(**inputs, image_index=PAIRS[0], query_index=PAIRS[1])
    (masks * torch.randn_like(masks)).sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    chosen = torch.zeros(IMAGES, QUERIES, dtype=torch.bool)
    chosen[PAIRS] = True
    assert torch.equal(inputs["queries"].grad.abs().amax(2) > 0, chosen)


def test_prediction_works_on_each_image_of_a_batch_once(tiny_model, make_batch):
    model, worked_on = tiny_model().eval(), []
    model.mask_head.laterals[0].register_forward_hook(
        lambda _module, _args, output: worked_on.append(len(output))
    )
    model(make_batch((64, 96), (50, 70), (40, 40)))
    assert sum(worked_on) == 3


def test_widths_and_groups_of_the_reference():
    head = AttentionMaskHead(
        hidden_dim=256,
        num_heads=8,
        attention_softmax="joint",
        lateral_channels=(1024, 512, 256),
        chunk_size=16,
        checkpointing=False,
    )
    assert [(c.in_channels, c.out_channels) for c in head.convs] == [
        (264, 128),
        (128, 64),
        (64, 32),
        (32, 16),
    ]
    assert [(c.in_channels, c.out_channels) for c in head.laterals] == [
        (1024, 128),
        (512, 64),
        (256, 32),
    ]
    assert {norm.num_groups for norm in (head.input_norm, *head.norms)} == {8}


def test_the_model_gives_the_head_what_it_is_documented_to_take(tiny_model, make_batch):
    model, given = tiny_model().eval(), {}
    model.mask_head.register_forward_pre_hook(
        lambda _module, _args, kwargs: given.update(kwargs), with_kwargs=True
    )
    detected = model.detector(model.preprocess(make_batch((64, 96), (50, 70))))
    model.masks_of(detected, *PAIRS)
    assert given["queries"].data_ptr() == detected.hidden[-1].data_ptr()
    assert given["memory"] is detected.memory
    assert given["projected"] is detected.projected
    assert given["padding_mask"] is detected.padding_mask is not None
    assert [x.shape[1] for x in given["laterals"]] == [128, 64, 32]
    assert (given["image_index"], given["query_index"]) == PAIRS


def test_another_head_can_be_registered(monkeypatch, tiny_config, tiny_model, make_batch):
    monkeypatch.setattr(DETR_MASK_HEAD_REGISTRY, "_obj_map", dict(DETR_MASK_HEAD_REGISTRY._obj_map))

    @DETR_MASK_HEAD_REGISTRY.register()
    class ConstantMaskHead(MaskHead):
        def __init__(self, cfg, lateral_channels):
            super().__init__()
            self.num_heads = cfg.MODEL.DETR.NUM_HEADS
            self.lateral_channels = list(lateral_channels)
            self.level = nn.Parameter(torch.ones(()))

        def forward(self, *, laterals, image_index, query_index, **rest):
            assert len(image_index) == len(query_index)
            return self.level.expand(len(image_index), *laterals[-1].shape[-2:])

    model = tiny_model({"MODEL.DETR.MASK_HEAD.NAME": "ConstantMaskHead"})
    assert isinstance(model.mask_head, ConstantMaskHead)
    assert model.mask_head.lateral_channels == [128, 64, 32]
    batch = make_batch((40, 50))
    sum(model(batch).values()).backward()
    assert model.mask_head.level.grad.abs() > 0
    assert model.eval()(batch)[0]["instances"].pred_masks.all()

"""Convolutions with folded batch norms, against Detectron2's; and the pass over memory saved."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling import BACKBONE_REGISTRY, build_backbone, build_resnet_backbone
from torch import nn

from detr_d2.modeling.folded_conv import FoldedConv2d, fold_batch_norms, has_fixed_statistics

NORMS = {"FrozenBN": FrozenBatchNorm2d, "BN": nn.BatchNorm2d}
SHAPES = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 1, "bias": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 4},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "activation": F.relu},
    {"kernel_size": (3, 1), "stride": (1, 2), "padding": (1, 0), "bias": True, "groups": 2},
    {"kernel_size": 1, "activation": F.relu_},
]
BOTH_NORMS = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)


@pytest.fixture
def make_pair(vary_batch_norms):
    """Makes Detectron2's convolution of 8 to 12 channels, and the same one, folded."""

    def make(norm: nn.Module | None, bias: bool = False, **shape) -> tuple[Conv2d, Conv2d]:
        torch.manual_seed(0)
        shape = {"kernel_size": 3, **shape}
        plain = Conv2d(8, 12, norm=norm, bias=bias, **shape)
        vary_batch_norms(plain)
        folded = fold_batch_norms(copy.deepcopy(plain))
        assert (type(plain), type(folded)) == (Conv2d, FoldedConv2d)
        return plain, folded

    return make


def image() -> torch.Tensor:
    return torch.randn(2, 8, 9, 11, generator=torch.Generator().manual_seed(1))


def gradients(conv: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of the input and of every parameter."""
    x = x.clone().requires_grad_()
    y = conv(x)
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    return {"x": x.grad, **{name: p.grad for name, p in conv.named_parameters()}}


@BOTH_NORMS
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_detectron2s_with_fixed_statistics(make_pair, norm, shape):
    plain, folded = (conv.eval() for conv in make_pair(norm(12), **shape))
    with torch.no_grad():
        expected = plain(image())
        torch.testing.assert_close(folded(image()), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.1


@BOTH_NORMS
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_detectron2s(make_pair, norm, shape):
    plain, folded = (conv.eval() for conv in make_pair(norm(12), **shape))
    expected = gradients(plain, image())
    actual = gradients(folded, image())
    assert actual.keys() == expected.keys() >= {"x", "weight"}
    assert ("norm.weight" in actual) == (norm is nn.BatchNorm2d)
    for name in expected:
        assert expected[name].any(), name
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("norm", "training"),
    [
        (nn.BatchNorm2d(12), True),
        (nn.BatchNorm2d(12, track_running_stats=False), False),
        (nn.BatchNorm2d(12, affine=False), False),
        (nn.GroupNorm(4, 12), False),
        (nn.GroupNorm(4, 12), True),
        (None, False),
        (None, True),
    ],
    ids=str,
)
def test_other_norms_are_computed_as_ever(make_pair, norm, training):
    torch.manual_seed(0)
    if isinstance(norm, nn.BatchNorm2d) and norm.affine is False:
        norm.running_mean.uniform_(-1, 1)
    shape = {"kernel_size": 3, "bias": norm is None, "activation": F.relu}
    plain = Conv2d(8, 12, norm=copy.deepcopy(norm), **shape).train(training)
    folded = fold_batch_norms(copy.deepcopy(plain))
    assert not has_fixed_statistics(folded.norm)
    before = copy.deepcopy(plain.state_dict())
    for _ in range(2):
        assert torch.equal(folded(image()), plain(image()))
    state = plain.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in folded.state_dict().items())
    moved = [name for name, value in state.items() if not torch.equal(value, before[name])]
    trained = training and isinstance(norm, nn.BatchNorm2d)
    statistics = ["running_mean", "running_var", "num_batches_tracked"]
    assert moved == ([f"norm.{name}" for name in statistics] if trained else [])


def test_batch_norm_folds_in_evaluation_only():
    norm = nn.BatchNorm2d(4)
    assert not has_fixed_statistics(norm)
    assert has_fixed_statistics(norm.eval())
    assert not has_fixed_statistics(norm.train())
    assert has_fixed_statistics(nn.SyncBatchNorm(4).eval())
    assert has_fixed_statistics(FrozenBatchNorm2d(4).train())


@BOTH_NORMS
def test_half_precision_stays_what_it_is(make_pair, norm):
    _, folded = make_pair(norm(12))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        result = folded.eval()(image())
    assert result.dtype == torch.bfloat16
    with torch.no_grad():
        torch.testing.assert_close(result.float(), folded(image()), rtol=0.05, atol=0.05)


@BOTH_NORMS
@pytest.mark.parametrize(
    ("name", "in_data"),
    [
        ("weight", False),
        ("weight", True),
        ("bias", False),
        ("norm.weight", True),
        ("norm.bias", True),
        ("norm.running_mean", False),
        ("norm.running_var", False),
        ("norm.running_var", True),
    ],
)
def test_changes_show_in_the_next_call(make_pair, norm, name, in_data):
    plain, folded = (conv.eval() for conv in make_pair(norm(12), bias=True))
    with torch.no_grad():
        before = folded(image())
        for conv in (plain, folded):
            tensor = (
                conv.get_parameter(name)
                if name in dict(conv.named_parameters())
                else (conv.get_buffer(name))
            )
            tensor = tensor.data if in_data else tensor
            tensor.mul_(1.5).add_(0.1)
        after = folded(image())
        assert not torch.allclose(after, before, atol=0.01)
        torch.testing.assert_close(after, plain(image()), rtol=1e-5, atol=1e-5)


@BOTH_NORMS
def test_loaded_weights_show_in_the_next_call(make_pair, norm):
    plain, folded = (conv.eval() for conv in make_pair(norm(12)))
    with torch.no_grad():
        folded(image())
        other = {k: v * 1.5 if v.is_floating_point() else v for k, v in plain.state_dict().items()}
        for conv in (plain, folded):
            conv.load_state_dict(other)
        torch.testing.assert_close(folded(image()), plain(image()), rtol=1e-5, atol=1e-5)


@BOTH_NORMS
@pytest.mark.parametrize("wants_gradients", [False, True])
def test_the_output_is_written_once(record_operations, make_pair, norm, wants_gradients):
    written = {}
    for conv in make_pair(norm(12), padding=1):
        x = image().requires_grad_(wants_gradients)
        with record_operations() as operations, torch.set_grad_enabled(wants_gradients):
            y = conv.eval()(x)
        written[type(conv)] = operations.shapes().count(y.shape)
        assert operations.names().count("convolution") == 1
    assert written[FoldedConv2d] == 1 < written[Conv2d]


@BOTH_NORMS
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_fold_and_stand_alone(make_pair, norm, copied):
    _, folded = make_pair(norm(12))
    with torch.no_grad():
        expected = folded.eval()(image())
        other = copied(folded)
        assert type(other) is FoldedConv2d
        assert torch.equal(other(image()), expected)
        other.norm.running_mean.add_(1)
        assert torch.equal(folded(image()), expected)
        assert not torch.allclose(other(image()), expected, atol=0.01)


def test_only_detectron2s_own_convolutions_are_changed():
    class OtherConv(Conv2d):
        def forward(self, x):
            return super().forward(x) + 1

    module = nn.Sequential(Conv2d(3, 4, 1), OtherConv(4, 4, 1), nn.Conv2d(4, 4, 1))
    parameters = dict(module.named_parameters())
    assert fold_batch_norms(module) is module
    assert all(parameter is parameters[name] for name, parameter in module.named_parameters())
    assert list(parameters) == [name for name, _ in module.named_parameters()]
    assert [type(part) for part in module] == [FoldedConv2d, OtherConv, nn.Conv2d]
    fold_batch_norms(module)
    assert type(module[0]) is FoldedConv2d


@pytest.fixture(params=["FrozenBN", "BN", "SyncBN"])
def backbones(request, monkeypatch, tiny_config, vary_batch_norms):
    """DETR's ResNet and Detectron2's own, which doesn't fold, with the same weights."""
    overrides = {"MODEL.RESNETS.NORM": request.param}
    torch.manual_seed(0)
    folded = build_backbone(tiny_config(overrides)).eval()
    vary_batch_norms(folded)
    name = build_resnet_backbone.__name__
    assert BACKBONE_REGISTRY.get(name) is build_resnet_backbone
    plain = build_backbone(tiny_config({**overrides, "MODEL.BACKBONE.NAME": name})).eval()
    plain.load_state_dict(folded.state_dict(), strict=True)
    return folded, plain


@torch.no_grad()
def test_a_folded_backbone_gives_what_it_gave(record_operations, backbones):
    x = torch.randn(2, 3, 64, 75, generator=torch.Generator().manual_seed(1))
    outputs, norms = [], []
    for backbone in backbones:
        with record_operations() as operations:
            outputs.append(backbone(x))
        norms.append(sum("batch_norm" in name for name in operations.names()))
    assert norms[0] == 0 < 50 < norms[1]
    for name, expected in outputs[1].items():
        assert (outputs[0][name] - expected).norm() <= 1e-5 * expected.norm(), name


def test_names_and_values_of_weights_stay(backbones):
    folded, plain = backbones
    before = copy.deepcopy(folded.state_dict())
    assert list(before) == list(plain.state_dict())
    parameters = [name for name, _ in folded.named_parameters()]
    assert parameters == [name for name, _ in plain.named_parameters()]
    folded(torch.randn(1, 3, 64, 64))["res5"].sum().backward()
    after = folded.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_every_convolution_of_the_backbone_folds(backbones):
    convs = [part for part in backbones[0].modules() if isinstance(part, nn.Conv2d)]
    assert len(convs) == 53
    assert all(type(conv) is FoldedConv2d and has_fixed_statistics(conv.norm) for conv in convs)

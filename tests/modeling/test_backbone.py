"""The backbone against torchvision's, whose layout released DETR weights have."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_model, build_resnet_backbone
from oracles.detectron2_names import detectron2_names
from torch import nn
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter

FULL_WIDTH = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 256,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 64,
}
FPN = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.DETR.IN_FEATURES": ["p2", "p3", "p4", "p5"],
}
LEVELS = ("res2", "res3", "res4", "res5")


def torchvision_features(image: torch.Tensor, model: nn.Module) -> dict[str, torch.Tensor]:
    layers = {f"layer{i}": name for i, name in enumerate(LEVELS, start=1)}
    with torch.no_grad():
        return IntermediateLayerGetter(model, layers)(image)


def features(cfg, state: dict[str, torch.Tensor], image: torch.Tensor) -> dict[str, torch.Tensor]:
    backbone = build_backbone(cfg, ShapeSpec(channels=3)).eval()
    backbone.load_state_dict(detectron2_names(state), strict=True)
    with torch.no_grad():
        return backbone(image)


def relative_difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(1, 3, 75, 97)


@pytest.fixture(scope="module")
def torchvision_model(vary_batch_norms):
    def make(dilated: bool) -> nn.Module:
        torch.manual_seed(0)
        model = resnet50(replace_stride_with_dilation=[False, False, dilated]).eval()
        vary_batch_norms(model)
        return model

    return make


@pytest.mark.parametrize("dilated", [False, True], ids=["R50", "R50-DC5"])
def test_every_level_equals_torchvisions(tiny_config, torchvision_model, image, dilated):
    reference = torchvision_model(dilated)
    cfg = tiny_config({**FULL_WIDTH, "MODEL.RESNETS.RES5_DILATION": 2 if dilated else 1})
    actual = features(cfg, reference.state_dict(), image)
    expected = torchvision_features(image, reference)
    for name in LEVELS:
        assert actual[name].shape == expected[name].shape
        assert relative_difference(actual[name], expected[name]) < 1e-4, name


def test_detectron2s_own_dilation_is_another_one(tiny_config, torchvision_model, image):
    """Why the backbone has a rule of its own; weights fit both, so nothing else would tell."""
    reference = torchvision_model(dilated=True)
    cfg = tiny_config(
        {
            **FULL_WIDTH,
            "MODEL.RESNETS.RES5_DILATION": 2,
            "MODEL.BACKBONE.NAME": build_resnet_backbone.__name__,
        }
    )
    actual = features(cfg, reference.state_dict(), image)["res5"]
    assert relative_difference(actual, torchvision_features(image, reference)["res5"]) > 0.01


@pytest.mark.parametrize("depth", [50, 101])
@pytest.mark.parametrize("dilation", [1, 2])
def test_declared_shapes_are_the_real_ones(tiny_config, depth, dilation):
    cfg = tiny_config({"MODEL.RESNETS.DEPTH": depth, "MODEL.RESNETS.RES5_DILATION": dilation})
    backbone = build_backbone(cfg, ShapeSpec(channels=3)).eval()
    with torch.no_grad():
        outputs = backbone(torch.zeros(1, 3, 64, 96))
    strides = (4, 8, 16, 32 // dilation)
    for name, channels, stride in zip(LEVELS, (32, 64, 128, 256), strides, strict=True):
        declared = backbone.output_shape()[name]
        assert (declared.channels, declared.stride) == (channels, stride)
        assert outputs[name].shape == (1, channels, 64 // stride, 96 // stride)


def test_depth_makes_res4_deeper(tiny_config):
    depths = {}
    for depth in (50, 101):
        backbone = build_backbone(tiny_config({"MODEL.RESNETS.DEPTH": depth}))
        depths[depth] = [len(backbone.get_submodule(name)) for name in LEVELS]
    assert depths == {50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}


def test_stem_and_res2_are_frozen(tiny_config):
    backbone = build_backbone(tiny_config())
    trained = {name.split(".")[0] for name, p in backbone.named_parameters() if p.requires_grad}
    assert trained == {"res3", "res4", "res5"}


@pytest.mark.parametrize("norm", ["BN", "SyncBN", "FrozenBN"])
def test_residual_blocks_start_as_the_identity_where_batch_norm_is_trained(tiny_config, norm):
    cfg = tiny_config({"MODEL.RESNETS.NORM": norm, "MODEL.BACKBONE.FREEZE_AT": 0})
    backbone = build_backbone(cfg)
    weights = [block.conv3.norm.weight for stage in backbone.stages for block in stage]
    assert len(weights) == 16
    assert all((weight == (1 if norm == "FrozenBN" else 0)).all() for weight in weights)


def test_another_backbone_of_detectron2_predicts(tiny_model, make_batch):
    model = tiny_model(FPN).eval()
    batch = make_batch((70, 90), (64, 40))
    for result, x in zip(model(batch), batch, strict=True):
        size = tuple(x["image"].shape[-2:])
        assert result["instances"].pred_masks.shape == (len(result["instances"]), *size)
        assert result["panoptic_seg"][0].shape == size


def test_another_backbone_of_detectron2_trains(tiny_model, make_batch):
    model = tiny_model(FPN)
    assert model.preprocess(make_batch((70, 90))).tensor.shape[-2:] == (96, 96)
    losses = model(make_batch((70, 90), (64, 40)))
    assert {"loss_class", "loss_giou", "loss_mask", "loss_dice"} <= set(losses)
    sum(losses.values()).backward()
    assert model.detector.backbone.fpn_lateral2.weight.grad.abs().max() > 0


@pytest.mark.parametrize("missing", ["res2", "res5"])
def test_missing_features_are_refused(tiny_config, missing):
    cfg = tiny_config({"MODEL.RESNETS.OUT_FEATURES": [n for n in LEVELS if n != missing]})
    with pytest.raises(ValueError, match=rf"MODEL\.DETR\.IN_FEATURES.*{missing}"):
        build_model(cfg)

"""Backbones of timm with random weights: shapes, features, freezing, training, padding."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_model
from oracles.detectron2_names import detectron2_names
from torch import nn

from detr_d2.modeling.folded_conv import FoldedConv2d

timm = pytest.importorskip("timm")

STAGES = (
    "resnet18",
    "convnext_atto",
    "efficientnet_lite0",
    "tf_efficientnet_lite0",
    "mobilenetv4_conv_small",
    "swin_tiny_patch4_window7_224",
)
VITS = ("vit_tiny_patch16_224", "vit_small_patch14_dinov2", "vit_small_patch16_dinov3")
BATCH_NORMS = [name for name in STAGES if not name.startswith(("convnext", "swin"))]
LEVELS = ("res2", "res3", "res4", "res5")
# timm's smallest models, for what takes long with others.
TINIEST = ("test_resnet", "test_efficientnet", "test_convnext", "test_vit")
BUILD = "build_timm_backbone"


def timm_overrides(name: str, **keys: object) -> dict[str, object]:
    return {
        "MODEL.BACKBONE.NAME": BUILD,
        "MODEL.TIMM.NAME": name,
        "MODEL.TIMM.PYRAMID_WIDTH": 32,
        "MODEL.PIXEL_MEAN": [],
        "MODEL.PIXEL_STD": [],
        **{f"MODEL.{key.replace('__', '.')}": value for key, value in keys.items()},
    }


@pytest.fixture
def make_backbone(tiny_config):
    def make(name: str, **keys: object):
        torch.manual_seed(0)
        cfg = tiny_config(timm_overrides(name, **keys))
        return build_backbone(cfg, ShapeSpec(channels=3))

    return make


@pytest.fixture
def make_timm_model(tiny_config, vary_batch_norms):
    def make(name: str, **keys: object):
        torch.manual_seed(0)
        model = build_model(tiny_config(timm_overrides(name, **keys)))
        vary_batch_norms(model.detector.backbone)
        return model

    return make


@pytest.mark.parametrize("name", [*STAGES, *VITS])
@pytest.mark.parametrize("size", [(75, 97), (64, 96)], ids=["odd", "even"])
def test_declared_shapes_are_the_real_ones(make_backbone, name, size):
    backbone = make_backbone(name).eval()
    with torch.no_grad():
        outputs = backbone(torch.randn(2, 3, *size))
    assert tuple(outputs) == LEVELS
    for level, stride in zip(LEVELS, (4, 8, 16, 32), strict=True):
        declared = backbone.output_shape()[level]
        assert declared.stride == stride
        grid = tuple(math.ceil(side / stride) for side in size)
        assert outputs[level].shape == (2, declared.channels, *grid)
        assert outputs[level].isfinite().all()


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "convnext_atto"])
def test_the_last_stage_can_keep_stride_16(make_backbone, name):
    backbone = make_backbone(name, TIMM__OUTPUT_STRIDE=16).eval()
    assert [backbone.output_shape()[level].stride for level in LEVELS] == [4, 8, 16, 16]
    with torch.no_grad():
        outputs = backbone(torch.randn(1, 3, 75, 97))
    assert outputs["res4"].shape[-2:] == outputs["res5"].shape[-2:] == (5, 7)
    assert outputs["res4"].shape[1] < outputs["res5"].shape[1]


@pytest.mark.parametrize("name", BATCH_NORMS)
@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_features_are_timms_with_norms_folded(make_backbone, vary_batch_norms, name, norm):
    whole = timm.create_model(name).eval()
    vary_batch_norms(whole)
    backbone = make_backbone(name, TIMM__NORM=norm).eval()
    theirs = whole.state_dict()
    backbone.load_state_dict({own: theirs[key] for key, own in backbone.names_in_timm.items()})
    folded = [m for m in backbone.modules() if isinstance(m, FoldedConv2d)]
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(folded) == len(norms) > 0
    # Models that pad as TensorFlow see whole cells alone.
    image = torch.randn(1, 3, *((64, 96) if name.startswith("tf_") else (75, 97)))
    with torch.no_grad():
        expected = whole.forward_intermediates(
            image, indices=backbone.indices, intermediates_only=True
        )
        actual = backbone(image).values()
    for ours, reference in zip(actual, expected, strict=True):
        assert (ours - reference).norm() < 1e-5 * reference.norm()


def test_a_resnet_of_timm_is_the_resnet_of_detectron2(make_backbone, tiny_config, vary_batch_norms):
    whole = timm.create_model("resnet50").eval()
    vary_batch_norms(whole)
    theirs = whole.state_dict()
    backbone = make_backbone("resnet50").eval()
    backbone.load_state_dict({own: theirs[key] for key, own in backbone.names_in_timm.items()})
    full_width = {"STEM_OUT_CHANNELS": 64, "RES2_OUT_CHANNELS": 256, "WIDTH_PER_GROUP": 64}
    ours = build_backbone(
        tiny_config({f"MODEL.RESNETS.{key}": value for key, value in full_width.items()})
    )
    ours.eval().load_state_dict(detectron2_names(theirs), strict=True)
    image = torch.randn(1, 3, 75, 97)
    with torch.no_grad():
        expected, actual = ours(image), backbone(image)
    for level in LEVELS:
        difference = (actual[level] - expected[level]).norm() / expected[level].norm()
        assert difference < 1e-5, level


@pytest.mark.parametrize("name", ["convnext_atto", "swin_tiny_patch4_window7_224"])
def test_features_without_batch_norm_are_normed(make_backbone, name):
    features = make_backbone(name).eval()(torch.randn(1, 3, 64, 96))
    for feature in features.values():
        assert feature.mean(1).abs().max() < 1e-5
        assert feature.var(1, correction=0).mean().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", [*STAGES, *VITS])
def test_freezing_begins_at_the_image(make_backbone, name):
    """What is frozen grows with the key; it ends where the feature of its stage is made."""
    trained = []
    places = (0, 1, 3, 5)
    for freeze_at in places:
        backbone = make_backbone(name, BACKBONE__FREEZE_AT=freeze_at, TIMM__NORM="BN").train()
        names = [key for key, p in backbone.model.named_parameters() if p.requires_grad]
        trained.append(len(names))
        frozen = [m for m in backbone.model.modules() if not m.training]
        assert all(not p.requires_grad for m in frozen for p in m.parameters(False))
        assert bool(frozen) == bool(freeze_at)
        if freeze_at in (0, 5):
            total = len(list(backbone.model.parameters()))
            assert not names if freeze_at else len(names) >= total - 2  # some may be unused
    assert trained == sorted(trained, reverse=True) and len(set(trained)) == len(places)


@pytest.mark.parametrize("freeze_at", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "convnext_atto"])
def test_the_frozen_part_ends_at_its_feature(make_backbone, name, freeze_at):
    """No gradient goes into what is frozen, and all of the stage behind it has one."""
    backbone = make_backbone(name, BACKBONE__FREEZE_AT=freeze_at).train()
    features = backbone(torch.randn(1, 3, 64, 64))
    depends = [feature.requires_grad for feature in features.values()]
    assert depends == [level >= freeze_at for level in range(1, 5)]


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "SyncBN"])
@pytest.mark.parametrize("name", BATCH_NORMS)
def test_statistics_are_fixed_where_they_should_be(make_backbone, name, norm):
    backbone = make_backbone(name, BACKBONE__FREEZE_AT=2, TIMM__NORM=norm).train()
    norms = [m for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    trained = [m for m in norms if m.training]
    assert len(norms) > len(trained) > 0 if norm != "FrozenBN" else not trained
    assert all(m.weight.requires_grad == m.training for m in norms)
    if norm == "SyncBN":
        assert all(isinstance(m, nn.SyncBatchNorm) for m in trained)
        return
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone(torch.randn(2, 3, 64, 64))
    changed = {key for key, value in backbone.state_dict().items() if not value.equal(before[key])}
    assert len(changed) == 3 * len(trained)  # mean, variance and counter


def test_norms_that_no_convolution_takes_keep_their_activation(make_backbone):
    """Those in front of the convolutions of a pre-activation ResNet, for several processes, too."""
    image = torch.randn(1, 3, 64, 64)
    one, several = (make_backbone("resnetv2_50", TIMM__NORM=norm) for norm in ("BN", "SyncBN"))
    norms = [m for m in several.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [m for m in norms if not isinstance(m, nn.BatchNorm2d) and hasattr(m, "act")]
    assert 0 < len(kept) < len(norms)
    with torch.no_grad():
        for ours, theirs in zip(
            several.eval()(image).values(), one.eval()(image).values(), strict=True
        ):
            torch.testing.assert_close(ours, theirs)


def test_weights_that_nothing_needs_are_not_trained(make_backbone):
    """Positions of a fixed kind among them, which timm doesn't train either."""
    backbone = make_backbone("vit_tiny_patch16_224", BACKBONE__FREEZE_AT=0)
    backbone.model.pos_embed.requires_grad_(False)
    backbone.model.unused = nn.Parameter(torch.zeros(3))
    backbone._leave_out_unused()
    fixed = {name for name, p in backbone.model.named_parameters() if not p.requires_grad}
    assert fixed == {"pos_embed", "unused"}


@pytest.mark.parametrize("name", [*STAGES, *VITS])
def test_a_training_step_reaches_every_weight(make_timm_model, make_batch, name):
    """An unused weight would also stop distributed training."""
    model = make_timm_model(name, BACKBONE__FREEZE_AT=0, TIMM__NORM="BN")
    sum(model(make_batch((64, 96), (64, 96))).values()).backward()
    without = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    gradients = [p.grad for p in model.detector.backbone.parameters() if p.requires_grad]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(gradient.abs().max() > 0 for gradient in gradients) > 0.9 * len(gradients)


@pytest.mark.parametrize("name", [*STAGES, *VITS])
def test_other_images_of_a_batch_do_not_matter(make_timm_model, make_batch, name):
    """As for ResNets: with BATCH_INVARIANT; without, zeros beyond the borders do. ViTs see none."""
    model = make_timm_model(name, DETR__BATCH_INVARIANT=name in STAGES).eval()
    image, larger = make_batch((64, 64), (128, 96))
    alone, beside = (
        next(iter(model.raw_predictions(batch))).logits for batch in ([image], [image, larger])
    )
    torch.testing.assert_close(alone, beside, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", VITS)
def test_a_vision_transformer_sees_no_padding(make_backbone, name):
    """Although attention and positions span the whole batch, features are those of each alone."""
    backbone = make_backbone(name).eval()
    batch = torch.randn(3, 3, 96, 96)
    sizes = [(64, 48), (96, 96), (64, 48)]
    mask = torch.ones(3, 96, 96, dtype=torch.bool)
    for image_mask, (height, width) in zip(mask, sizes, strict=True):
        image_mask[:height, :width] = False
    with torch.no_grad():
        together = backbone(batch, mask)
        for i, (height, width) in enumerate(sizes):
            for level, alone in backbone(batch[i : i + 1, :, :height, :width]).items():
                rows, columns = alone.shape[-2:]
                one = together[level][i : i + 1]
                torch.testing.assert_close(one[..., :rows, :columns], alone, atol=1e-4, rtol=1e-4)
                assert not one[..., rows:, :].any() and not one[..., columns:].any()


@pytest.mark.parametrize("name", TINIEST)
def test_it_compiles(make_timm_model, make_batch, name):
    if name == "test_convnext" and torch.__version__ < (2, 8):
        pytest.skip("compiling, PyTorch 2.6 loses track of how many features ConvNeXt returns")
    model = make_timm_model(name).eval()
    image = make_batch((64, 96))
    with torch.no_grad():
        plain = next(iter(model.raw_predictions(image))).logits
        model.detector.backbone.compile(backend="aot_eager", fullgraph=True)
        compiled = next(iter(model.raw_predictions(image))).logits
    torch.testing.assert_close(compiled, plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("resnet81", {}, "has no model 'resnet81'.*Similar names: resnet"),
        ("resnet18.no_such_tag", {}, "resnet18.no_such_tag"),
        ("levit_128", {}, "strides 16, 32, 64; a backbone needs 4, 8, 16 and 32"),
        ("maxvit_tiny_tf_224", {}, "maxvit_tiny_tf_224 takes only images of one size"),
        ("beit_base_patch16_224", {}, "beit_base_patch16_224 takes only images of one size"),
        ("swin_tiny_patch4_window7_224", {"TIMM__OUTPUT_STRIDE": 16}, "TIMM.OUTPUT_STRIDE"),
        ("vit_tiny_patch16_224", {"TIMM__OUTPUT_STRIDE": 16}, "TIMM.OUTPUT_STRIDE.*must be 32"),
        ("resnet18", {"TIMM__OUTPUT_STRIDE": 8}, "TIMM.OUTPUT_STRIDE is 8, but must be 16 or 32"),
        ("resnet18", {"TIMM__NORM": "GN"}, "TIMM.NORM is 'GN', but must be one of 'FrozenBN'"),
        ("resnet18", {"TIMM__DROP_PATH": 1.0}, "TIMM.DROP_PATH is 1.0"),
        ("resnet18", {"BACKBONE__FREEZE_AT": 6}, "BACKBONE.FREEZE_AT is 6, but must be in 0 … 5"),
    ],
)
def test_what_cannot_work_is_refused(tiny_config, name, keys, message):
    with pytest.raises(ValueError, match=message):
        build_model(tiny_config(timm_overrides(name, **keys)))


def test_the_channel_order_is_timms(tiny_config):
    cfg = tiny_config({**timm_overrides("test_resnet"), "INPUT.FORMAT": "BGR"})
    with pytest.raises(ValueError, match="INPUT.FORMAT is 'BGR', but must be 'RGB'"):
        build_model(cfg)


def test_a_missing_timm_is_said_with_its_extra(tiny_config, monkeypatch):
    monkeypatch.setattr("detr_d2.extras._is_installed", lambda name: name != "timm")
    with pytest.raises(ImportError, match=r"TIMM.NAME 'test_resnet' needs timm.*detr_d2\[timm\]"):
        build_model(tiny_config(timm_overrides("test_resnet")))


def test_pixel_statistics_follow_the_model(tiny_config, log_lines):
    model = build_model(tiny_config(timm_overrides("test_vit")))
    assert model.pixel_mean.flatten().tolist() == [127.5] * 3
    assert model.pixel_std.flatten().tolist() == [127.5] * 3
    assert not [line for line in log_lines if "pixel statistics" in line]


def test_other_pixel_statistics_are_one_warning(tiny_config, log_lines):
    cfg = tiny_config(
        timm_overrides("test_vit2", PIXEL_MEAN=[123.675, 116.28, 103.53], PIXEL_STD=[1.0] * 3)
    )
    for _ in range(2):
        model = build_model(cfg)
    assert model.pixel_std.flatten().tolist() == [1.0] * 3
    (warning,) = [line for line in log_lines if "pixel statistics" in line]
    assert "MODEL.PIXEL_MEAN is [123.675, 116.28, 103.53], timm's [127.5, 127.5, 127.5]" in warning


def test_pixel_statistics_are_needed_elsewhere(tiny_config):
    with pytest.raises(ValueError, match=r"PIXEL_MEAN is \[\], but must be three numbers"):
        build_model(tiny_config({"MODEL.PIXEL_MEAN": []}))


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", *VITS[:1]])
def test_layers_in_front_have_more_layers_behind_them(make_backbone, name):
    backbone = make_backbone(name, BACKBONE__FREEZE_AT=0)
    depths = backbone.layer_depths
    names = [key for key, _ in backbone.named_parameters() if key.startswith("model.")]
    assert depths.keys() == set(names)
    in_order = [depths[key] for key in names]
    assert in_order[0] == max(in_order) > 4 and min(in_order) == in_order[-1] == 0
    assert in_order == sorted(in_order, reverse=True)

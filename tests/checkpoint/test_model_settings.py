"""Settings that no tensor shows: what files say of them, and where they differ from a model's."""

import argparse
from dataclasses import replace

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_model
from torch import nn

from detr_d2 import config_file, load_config
from detr_d2.checkpoint import DESCRIPTION, CheckpointError, ModelSettings
from detr_d2.checkpoint.model_settings import KEYS, different_settings
from detr_d2.engine.checkpointer import StrictCheckpointer

# Of the released models, dilation aside.
RELEASED = ModelSettings(
    num_heads=8,
    pre_norm=False,
    position_embedding="sine",
    position_temperature=10000.0,
    res5_dilation=1,
    mask_head="AttentionMaskHead",
    attention_softmax="joint",
    stride_in_1x1=False,
    input_format="RGB",
    backbone="ResNet",
)
# What all of the reference's and of Hugging Face's have in common.
UNSAID = replace(
    RELEASED, num_heads=None, pre_norm=None, position_embedding=None, res5_dilation=None
)


def config(**overrides: object):
    flat = [part for key, value in overrides.items() for part in (KEYS[key], value)]
    return load_config(config_file("detr_panoptic.yaml"), flat)


# --- where they come from ---


def test_every_setting_has_its_key():
    values = {
        "num_heads": 4,
        "pre_norm": True,
        "position_embedding": "learned",
        "position_temperature": 20.0,
        "res5_dilation": 2,
        "mask_head": "SomeHead",
        "attention_softmax": "per_head",
        "stride_in_1x1": True,
        "input_format": "BGR",
    }
    changed = ModelSettings.from_config(config(**values), has_resnet=True)
    assert changed == ModelSettings(**values, backbone="ResNet")
    assert KEYS.keys() == ModelSettings().to_dict().keys()
    assert KEYS.keys() - values.keys() == {"backbone", "output_stride"}
    assert ModelSettings.from_config(config(), has_resnet=True) == RELEASED
    without = ModelSettings.from_config(config(), has_resnet=False)
    assert without == replace(RELEASED, res5_dilation=None, stride_in_1x1=None, backbone=None)
    of_timm = ModelSettings.from_config(
        config(output_stride=16), has_resnet=False, of_timm="resnet18"
    )
    assert of_timm == replace(without, backbone="resnet18 of timm", output_stride=16)
    boxes = ModelSettings.from_config(
        load_config(config_file("detr_panoptic_boxes.yaml")), has_resnet=True
    )
    assert boxes == replace(RELEASED, mask_head=None)
    pixel = config(mask_head="PixelEmbeddingMaskHead")
    assert ModelSettings.from_config(pixel, has_resnet=True) == replace(
        RELEASED, mask_head="PixelEmbeddingMaskHead", attention_softmax=None
    )


def test_a_dict_there_and_back():
    for settings in (RELEASED, UNSAID, ModelSettings()):
        assert ModelSettings.from_dict(settings.to_dict()) == settings
    newer = {"num_heads": 4, "not_yet_thought_of": "?"}
    assert ModelSettings.from_dict(newer) == ModelSettings(num_heads=4)
    assert ModelSettings.from_dict({}) == ModelSettings()


def reference_args(**changes: object) -> argparse.Namespace:
    """Some of the arguments that the reference's training saves."""
    args = {"nheads": 8, "dilation": False, "position_embedding": "sine", "pre_norm": False}
    return argparse.Namespace(**{**args, "lr": 1e-4, "masks": False, **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"nheads": 4}, {"num_heads": 4}),
        ({"dilation": True}, {"res5_dilation": 2}),
        ({"position_embedding": "learned"}, {"position_embedding": "learned"}),
        ({"position_embedding": "v3"}, {"position_embedding": "learned"}),
        ({"position_embedding": "v2"}, {"position_embedding": "sine"}),
        ({"pre_norm": True}, {"pre_norm": True}),
    ],
)
def test_of_the_references_arguments(changes, expected):
    settings = ModelSettings.from_reference(reference_args(**changes))
    assert settings == replace(RELEASED, **expected)


def test_the_reference_may_say_little():
    assert ModelSettings.from_reference(None) == UNSAID
    assert ModelSettings.from_reference(argparse.Namespace()) == UNSAID
    some = ModelSettings.from_reference(argparse.Namespace(dilation=False))
    assert some == replace(UNSAID, res5_dilation=1)


def hugging_face_config(**changes: object) -> dict:
    """As the released folders have it."""
    heads = {"encoder_attention_heads": 8, "decoder_attention_heads": 8}
    others = {"activation_function": "relu", "position_embedding_type": "sine", "dilation": False}
    return {"model_type": "detr", "backbone": "resnet50", **heads, **others, **changes}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"dilation": True}, {"res5_dilation": 2}),
        ({"dilation": None, "backbone_config": None}, {}),
        ({"backbone_config": {"output_stride": 16}}, {"res5_dilation": 2}),
        ({"backbone_config": {"output_stride": None}}, {}),
        ({"backbone_config": {"output_stride": 32}}, {}),
        ({"encoder_attention_heads": 4, "decoder_attention_heads": 4}, {"num_heads": 4}),
        ({"position_embedding_type": "learned"}, {"position_embedding": "learned"}),
    ],
)
def test_of_hugging_faces_config(changes, expected):
    settings = ModelSettings.from_hugging_face(hugging_face_config(**changes))
    assert settings == replace(RELEASED, **expected)


def test_hugging_faces_defaults_are_left_out_of_its_files():
    assert ModelSettings.from_hugging_face({"model_type": "detr"}) == RELEASED


def test_without_hugging_faces_config_little_is_known():
    assert ModelSettings.from_hugging_face(None) == replace(UNSAID, pre_norm=False)


@pytest.mark.parametrize("dilation", [False, True])
def test_transformers_own_configs(dilation):
    transformers = pytest.importorskip("transformers")
    changes = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "dilation": dilation}
    theirs = transformers.DetrConfig(**changes, position_embedding_type="learned")
    changes = {"num_heads": 4, "position_embedding": "learned", "res5_dilation": 1 + dilation}
    expected = replace(RELEASED, **changes)
    assert ModelSettings.from_hugging_face(theirs.to_dict()) == expected
    assert ModelSettings.from_hugging_face(theirs.to_diff_dict()) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_attention_heads": 4}, "has (4 and 8|8 and 4) attention heads in encoder and"),
        ({"decoder_attention_heads": 16}, "16"),
        ({"activation_function": "gelu"}, "has the activation 'gelu', not 'relu'"),
        # Networks of other kinds whose tensors have the names and shapes of a ResNet's.
        ({"backbone": "resnetblur50"}, "a backbone with backbone 'resnetblur50'"),
        ({"backbone_config": {"backbone": "resnetblur50"}}, "backbone 'resnetblur50'"),
        ({"backbone_config": {"output_stride": 8}}, "output_stride 8"),
        ({"backbone_config": {"hidden_act": "gelu"}}, "hidden_act 'gelu'"),
        ({"backbone_config": {"downsample_in_bottleneck": True}}, "downsample_in_bottleneck"),
        ({"backbone_config": {"downsample_in_first_stage": True}}, "downsample_in_first_stage"),
    ],
)
def test_what_no_setting_can_describe_is_refused(changes, message):
    with pytest.raises(CheckpointError, match=message):
        ModelSettings.from_hugging_face(hugging_face_config(**changes))


# --- where they differ ---


def test_equal_and_unknown_settings_do_not_differ():
    for file in (RELEASED, UNSAID, ModelSettings()):
        assert different_settings(file, RELEASED, has_mask_head=True) == {}
    assert different_settings(RELEASED, ModelSettings(), has_mask_head=True) == {}
    whole = replace(RELEASED, position_temperature=10000)
    assert different_settings(whole, RELEASED, has_mask_head=True) == {}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_heads", 4, "MODEL.DETR.NUM_HEADS is 8, the file was made with 4"),
        ("pre_norm", True, "MODEL.DETR.PRE_NORM is False, the file was made with True"),
        (
            "position_embedding",
            "learned",
            "MODEL.DETR.POSITION_EMBEDDING is 'sine', the file was made with 'learned'",
        ),
        (
            "position_temperature",
            20.0,
            "MODEL.DETR.POSITION_TEMPERATURE is 10000.0, the file was made with 20.0",
        ),
        ("res5_dilation", 2, "MODEL.RESNETS.RES5_DILATION is 1, the file was made with 2"),
        (
            "attention_softmax",
            "per_head",
            "MODEL.DETR.MASK_HEAD.ATTENTION_SOFTMAX is 'joint', the file was made with 'per_head'",
        ),
    ],
)
def test_each_setting_that_differs_is_told_with_its_key(name, value, message):
    file = replace(RELEASED, **{name: value})
    assert different_settings(file, RELEASED, has_mask_head=True) == {name: message}


def test_head_and_softmax_matter_to_mask_heads_alone():
    file = replace(RELEASED, mask_head="Other", attention_softmax="per_head", num_heads=4)
    assert different_settings(file, RELEASED, has_mask_head=True).keys() == {
        "mask_head",
        "attention_softmax",
        "num_heads",
    }
    assert different_settings(file, RELEASED, has_mask_head=False).keys() == {"num_heads"}


def test_the_temperature_matters_to_sines_alone():
    learned = replace(RELEASED, position_embedding="learned")
    other = replace(learned, position_temperature=20.0)
    assert different_settings(other, learned, has_mask_head=True) == {}
    differences = different_settings(other, RELEASED, has_mask_head=True)
    assert "position_embedding" in differences
    other = replace(RELEASED, position_temperature=20.0)
    assert different_settings(other, RELEASED, True).keys() == {"position_temperature"}


# --- what loading makes of it ---

BOXES = ("MODEL.DETR.MASK_ON", False)
FROZEN = ("MODEL.DETR.FREEZE_DETECTOR", True)
RESIZE = ("MODEL.DETR.RESIZE_ON_LOAD", True)


@pytest.fixture
def load(make_tiny_cfg, tmp_path):
    """Saves a tiny model with one setting changed, and loads it into one with others."""

    def load(setting: str, value: object, *overrides: object, to_train=True, theirs=()) -> None:
        folder = tmp_path / "saved"
        if not folder.exists():
            folder.mkdir()
            saved = build_model(make_tiny_cfg(tmp_path, KEYS[setting], value, *theirs))
            StrictCheckpointer(saved, str(folder)).save("model")
        model = build_model(make_tiny_cfg(tmp_path, *overrides))
        StrictCheckpointer(model, to_train=to_train).load(str(folder / "model.pth"))

    return load


@pytest.mark.parametrize(
    ("setting", "value", "of_detector"),
    [
        ("res5_dilation", 1, True),
        ("position_temperature", 10000.0, True),
        ("attention_softmax", "joint", False),
    ],
)
def test_other_settings_are_refused_or_trained_on_from(load, caplog, setting, value, of_detector):
    refused = f"it was made with other settings: {KEYS[setting]} is .*, .* was made with {value!r}"
    advice = "Set the keys accordingly, or MODEL.DETR.RESIZE_ON_LOAD True to train from it"
    for overrides in ((), *([] if of_detector else [FROZEN])):
        with pytest.raises(CheckpointError, match=rf"{refused}\. {advice}"):
            load(setting, value, *overrides)
    with pytest.raises(CheckpointError, match=refused):  # there is nothing to evaluate
        load(setting, value, *RESIZE, to_train=False)
    if of_detector:
        with pytest.raises(CheckpointError, match=rf"{refused}\. Set the keys accordingly\.$"):
            load(setting, value, *FROZEN, *RESIZE)
    load(setting, value, KEYS[setting], value, to_train=False)
    assert "Other settings" not in caplog.text
    load(setting, value, *RESIZE, *(() if of_detector else FROZEN))
    assert f"model.pth: Other settings: {KEYS[setting]} is " in caplog.text


def test_heads_are_told_as_well(load):
    """A bare detector of other heads has the same tensors."""
    with pytest.raises(CheckpointError) as caught:
        load("num_heads", 8, *BOXES, theirs=BOXES)
    _, line = str(caught.value).split("\n")
    assert "MODEL.DETR.NUM_HEADS is 4, the file was made with 8" in line
    load("num_heads", 8, *BOXES, *RESIZE)


@pytest.mark.parametrize("without_masks", ["file", "model"])
def test_the_softmax_is_nobodys_business_without_a_mask_head(load, caplog, without_masks):
    file, model = (BOXES, ()) if without_masks == "file" else ((), BOXES)
    load("attention_softmax", "joint", *model, theirs=file)
    assert not caplog.records


class OneConvolution(Backbone):
    """The same map at four strides, seen by one convolution."""

    def __init__(self, cfg, input_shape):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)

    def forward(self, x):
        x = self.conv(x)
        return {name: x[..., :: s.stride, :: s.stride] for name, s in self.output_shape().items()}

    def output_shape(self):
        return {f"res{i}": ShapeSpec(channels=8, stride=2**i) for i in (2, 3, 4, 5)}


def test_other_backbones_have_no_settings_of_resnets(load, tmp_path):
    """Files of older versions say them all the same, and load."""
    BACKBONE_REGISTRY.register(OneConvolution)
    try:
        backbone = ("MODEL.BACKBONE.NAME", "OneConvolution")
        load("res5_dilation", 1, *backbone, KEYS["res5_dilation"], 2, theirs=backbone)
        path = tmp_path / "saved/model.pth"
        content = torch.load(path, weights_only=True)
        settings = content[DESCRIPTION]["settings"]
        assert settings["num_heads"] == 4
        assert settings["res5_dilation"] is settings["stride_in_1x1"] is None
        settings.update(res5_dilation=1, stride_in_1x1=False)
        torch.save(content, path)
        load("res5_dilation", 1, *backbone, KEYS["res5_dilation"], 2)
    finally:
        del BACKBONE_REGISTRY._obj_map["OneConvolution"]

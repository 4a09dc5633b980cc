"""Names tell the kinds of state dicts apart; what no kind has is refused by name."""

from __future__ import annotations

import re
from collections import OrderedDict

import pytest
import torch
from torch import nn

from detr_d2.checkpoint import DESCRIPTION, CheckpointError, recognise
from detr_d2.checkpoint.formats import HUGGING_FACE, OWN, REFERENCE, TORCHVISION, to_own_names
from detr_d2.engine.checkpointer import StrictCheckpointer

BOXES = {"MODEL.DETR.MASK_ON": False}
BATCH_NORM = {"MODEL.RESNETS.NORM": "BN"}
LINEAR1 = "transformer.encoder.layers.0.linear1.weight"
Q_PROJ = "model.encoder.layers.0.self_attn.q_proj"
RESNET_CONV = "layer1.0.conv1.weight"


def tensors(*names: str) -> dict[str, torch.Tensor]:
    """Of shapes that don't matter here."""
    return {name: torch.full((3, 2), float(i)) for i, name in enumerate(names)}


@pytest.fixture
def load(tmp_path, make_model):
    """Saves a file and loads it into a model of its own: ``load(content, overrides, to_train)``."""

    def run(content: object, overrides: dict, to_train: bool = False, zipped: bool = True):
        path, model = tmp_path / "weights.pth", make_model(overrides)
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        assert path.read_bytes().startswith(b"PK") == zipped
        StrictCheckpointer(model, to_train=to_train).load(str(path))
        return model

    return run


# --- Recognising ---


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["detector.input_proj.bias"], OWN),
        (["mask_head.attention_map.q_proj.weight"], OWN),
        (["detr.transformer.decoder.layers.5.linear1.weight"], REFERENCE),
        (["detr.detr.transformer.encoder.layers.0.linear1.weight"], REFERENCE),
        (["detr.model.decoder.layers.0.self_attn.q_proj.weight"], HUGGING_FACE),
        # One typical name is enough, wherever it is.
        (["mask_head.lay1.weight", "criterion.empty_weight", LINEAR1], REFERENCE),
        (["mask_head.output_conv.weight", f"{Q_PROJ}.weight"], HUGGING_FACE),
        (["fc.weight", RESNET_CONV], TORCHVISION),
        # Parts, other architectures, nothing.
        (["mask_head.lay1.weight"], None),
        (["backbone.0.body.layer1.0.conv1.weight"], None),
        (["encoder.layers.0.self_attn.q_proj.weight"], None),
        (["proposal_generator.rpn_head.conv.weight", "backbone.bottom_up.stem.conv1.weight"], None),
        ([f"my.{LINEAR1}", f"{LINEAR1}.scale"], None),
        ([], None),
    ],
    ids=lambda value: getattr(value, "title", None),
)
def test_the_kind_shows_in_the_names(names, kind):
    assert recognise(names) is kind


def test_tensors_are_renamed_split_and_ignored():
    state_dict = {
        **tensors(LINEAR1, "transformer.decoder.layers.11.multihead_attn.in_proj_weight"),
        **tensors("backbone.0.backbone.res4.22.conv3.norm.num_batches_tracked"),
        "criterion.empty_weight": torch.ones(7),
    }
    named = to_own_names(state_dict)
    attention = "detector.transformer.decoder_layers.11.cross_attention"
    assert named.format is REFERENCE
    assert named.source == {
        "detector.transformer.encoder_layers.0.feed_forward.0.weight": LINEAR1,
        **{f"{attention}.{part}_proj.weight": list(state_dict)[1] for part in "qkv"},
    }
    assert named.weights.keys() == named.source.keys()
    assert [named.weights[f"{attention}.{part}_proj.weight"].shape for part in "qkv"] == [
        (1, 2)
    ] * 3
    assert named.ignored == list(state_dict)[2:]


def test_a_kind_takes_all_names_with_its_prefix_and_without():
    """The head of Hugging Face's segmentation models isn't under ``detr``, the rest is."""
    names = [f"detr.{Q_PROJ}.weight", "mask_head.lay1.bias", "bbox_attention.q_linear.bias"]
    assert list(to_own_names(tensors(*names)).weights) == [
        "detector.transformer.encoder_layers.0.self_attention.q_proj.weight",
        "mask_head.input_conv.bias",
        "mask_head.attention_map.q_proj.bias",
    ]


# --- Refusing ---


@pytest.mark.parametrize(
    ("kind", "typical", "names"),
    [
        (
            REFERENCE,
            LINEAR1,
            ["transformer.level_embed", "class_embed.0.weight"],
        ),  # Deformable DETR
        (REFERENCE, LINEAR1, ["class_embed.weight.scale", "class_embed", "my.class_embed.weight"]),
        (HUGGING_FACE, f"{Q_PROJ}.weight", ["model.encoder.layernorm.weight"]),  # Table Transformer
        (HUGGING_FACE, f"{Q_PROJ}.weight", ["model.shared.weight", "lm_head.weight"]),  # BART
        (TORCHVISION, RESNET_CONV, ["layer1.0.se.fc1.weight", "last_linear.weight"]),
    ],
)
def test_names_that_a_kind_has_not_are_left_over(kind, typical, names):
    with pytest.raises(CheckpointError) as caught:
        to_own_names(tensors(typical, *names))
    message = str(caught.value)
    assert f"recognised as {kind.title}, but has tensors" in message
    assert message.endswith(f": {', '.join(names)}.")


def test_of_many_names_a_few_are_told():
    with pytest.raises(CheckpointError, match=r": x0, x1, x2, x3, x4, x5 and 14 more\.$"):
        to_own_names(tensors(LINEAR1, *(f"x{i}" for i in range(20))))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("mask_head.lay1.bias", "mask_head.conv1.conv.bias"),
        (f"{Q_PROJ}.bias", f"detr.{Q_PROJ}.bias"),
        ("model.decoder.layers.0.fc1.bias", "model.decoder.layers.0.mlp.fc1.bias"),
    ],
)
def test_two_names_of_one_tensor(first, second):
    with pytest.raises(CheckpointError, match=f"^{re.escape(first)} and {re.escape(second)} both"):
        to_own_names(tensors(f"{Q_PROJ}.weight", first, second))


@pytest.mark.parametrize("shape", [(), (1,), (4,), (5, 2)])
def test_a_joint_matrix_that_is_not_of_three(shape):
    name = "transformer.encoder.layers.0.self_attn.in_proj_bias"
    with pytest.raises(CheckpointError, match=rf"{name} can't be split.*{re.escape(str(shape))}"):
        to_own_names({**tensors(LINEAR1), name: torch.zeros(shape)})


@pytest.mark.parametrize(
    "store",
    [
        lambda tensor: tensor.to_sparse(),
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: tensor.to("meta"),
        lambda tensor: tensor.tolist(),
    ],
    ids=["sparse", "complex", "meta", "list"],
)
def test_what_is_no_plain_tensor(store):
    state_dict = {**tensors(LINEAR1), "query_embed.weight": store(torch.ones(4, 2))}
    with pytest.raises(CheckpointError, match=r"as they are stored.*: query_embed\.weight\.$"):
        to_own_names(state_dict)


@pytest.mark.parametrize("shape", [(), (0,), (0, 32)])
@pytest.mark.parametrize("name", ["class_embed.bias", "class_embed.weight", "query_embed.weight"])
def test_classes_and_queries_that_cannot_be_counted(name, shape):
    with pytest.raises(CheckpointError, match=rf"{name} has no rows.*{re.escape(str(shape))}"):
        to_own_names({**tensors(LINEAR1), name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "it holds no tensors"),
        ({"model": {}}, "it holds no tensors"),
        (tensors("a.weight", "a.bias"), "no known kind of checkpoint. Its first tensors are a.wei"),
        (tensors("a.b"), "the reference DETR; DETR of Hugging Face's transformers; a ResNet of"),
        (tensors("mask_head.lay1.weight"), "no known kind of checkpoint"),
        ({"model": [1, 2]}, "holds no state dict (names and their tensors), but list"),
        ({"epoch": 3}, "holds no state dict (names and their tensors), but 'epoch': int"),
        (torch.zeros(3), "holds no state dict (names and their tensors), but Tensor"),
    ],
)
def test_files_of_no_known_kind(load, content, message):
    with pytest.raises(CheckpointError, match=rf"weights\.pth.*{re.escape(message)}"):
        load(content, BOXES)


# --- This project's own files ---


def own_weights(model: nn.Module) -> OrderedDict:
    return OrderedDict((name, tensor + 1) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"model": weights},
        lambda weights: weights,
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model_state": weights},
        lambda weights: {"model": {f"module.{name}": t for name, t in weights.items()}},
        lambda weights: {f"module.{name}": tensor for name, tensor in weights.items()},
    ],
    ids=["model", "bare", "state_dict", "model_state", "distributed", "distributed bare"],
)
def test_own_files(load, make_model, assert_holds, wrap):
    weights = own_weights(make_model())
    assert_holds(load(wrap(weights), {}), weights)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_own_detectors_with_batch_norm(load, make_model, assert_holds, zipped):
    overrides = {**BOXES, **BATCH_NORM}
    weights = own_weights(make_model(overrides))
    assert "detector.backbone.stem.conv1.norm.num_batches_tracked" in weights
    assert_holds(load({"model": weights}, overrides, zipped=zipped), weights)


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.double, torch.float8_e5m2])
def test_numbers_of_other_types_are_converted(load, make_model, assert_holds, dtype):
    weights = own_weights(make_model(BOXES))
    stored = {name: tensor.to(dtype) for name, tensor in weights.items()}
    assert_holds(load(stored, BOXES), {name: tensor.float() for name, tensor in stored.items()})


def test_numbers_too_large_for_the_model(load, make_model):
    weights = own_weights(make_model(BOXES))
    weights["detector.input_proj.bias"] = torch.full((32,), 1e39, dtype=torch.double)
    with pytest.raises(CheckpointError, match=r"detector\.input_proj\.bias: NaN or infinite"):
        load(weights, BOXES)


@pytest.mark.parametrize("prefix", ["", "module."], ids=["alone", "distributed"])
def test_the_references_files_of_distributed_training(
    load, make_reference, expected_of_reference, assert_holds, prefix
):
    reference = make_reference(masks=True)
    weights = {prefix + name: tensor for name, tensor in reference.state_dict().items()}
    assert_holds(load(weights, {}), expected_of_reference(reference))


def test_what_the_checkpointer_saves(make_model, assert_holds, tmp_path):
    model = make_model(BATCH_NORM)
    model.load_state_dict(own_weights(model))
    StrictCheckpointer(model, str(tmp_path)).save("model_0000004", iteration=4)
    loaded = make_model(BATCH_NORM)
    rest = StrictCheckpointer(loaded).load(str(tmp_path / "model_0000004.pth"))
    assert_holds(loaded, model.state_dict())
    assert rest.keys() == {DESCRIPTION, "iteration"}
    assert rest[DESCRIPTION]["settings"]["num_heads"] == 8


# --- Backbones of torchvision ---


@pytest.mark.parametrize(
    ("depth", "blocks", "norm", "zipped"),
    [
        (50, [3, 4, 6, 3], "FrozenBN", True),
        (50, [3, 4, 6, 3], "BN", False),
        (101, [3, 4, 23, 3], "FrozenBN", False),
        (101, [3, 4, 23, 3], "BN", True),
    ],
)
def test_backbones_of_torchvision(
    load, make_model, make_torchvision, expected, assert_holds, depth, blocks, norm, zipped
):
    resnet = make_torchvision(blocks)
    assert {"fc.weight", "fc.bias", "bn1.num_batches_tracked"} < resnet.state_dict().keys()
    overrides = {"MODEL.RESNETS.DEPTH": depth, "MODEL.RESNETS.NORM": norm}
    expected.put_resnet(dict(resnet.named_children()))
    initial = make_model(overrides).state_dict()
    in_backbone = {
        name
        for name in initial
        if name.startswith("detector.backbone.") and not name.endswith(".num_batches_tracked")
    }
    assert expected.keys() == in_backbone
    model = load(resnet.state_dict(), overrides, to_train=True, zipped=zipped)
    assert_holds(model, {**initial, **expected})


@pytest.mark.parametrize(
    ("overrides", "to_train"), [({}, False), ({"MODEL.DETR.FREEZE_DETECTOR": True}, True)]
)
def test_a_backbone_is_no_detector(load, make_torchvision, overrides, to_train):
    message = r"a ResNet of torchvision \(backbone\):\n  it is a backbone to train from, and not a "
    with pytest.raises(CheckpointError, match=message):
        load(make_torchvision([3, 4, 6, 3]).state_dict(), overrides, to_train)

"""Detectron2's own loaders, which know nothing of other projects' names."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import DefaultPredictor
from torch import nn

from detr_d2.checkpoint import CheckpointError

ARGUMENTS = argparse.Namespace(lr=1e-4, nheads=8, dilation=False, position_embedding="sine")


def by_predictor(cfg, path: str) -> nn.Module:
    cfg.MODEL.WEIGHTS = path
    return DefaultPredictor(cfg).model


def by_checkpointer(cfg, path: str) -> nn.Module:
    from detectron2.modeling import build_model

    model = build_model(cfg).eval()
    DetectionCheckpointer(model).load(path)
    return model


BOTH_LOADERS = pytest.mark.parametrize("load", [by_predictor, by_checkpointer])


@pytest.fixture
def save(tmp_path) -> Callable[[object], str]:
    """Saves a file; gives its path."""

    def run(content: object, name: str = "weights.pth") -> str:
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)

    return run


@pytest.fixture
def reference(make_reference) -> nn.Module:
    return make_reference(masks=True)


@pytest.fixture
def hugging_face() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    resnet = {"model_type": "resnet", "embedding_size": 64, "hidden_sizes": [32, 64, 128, 256]}
    resnet["out_features"] = ["stage1", "stage2", "stage3", "stage4"]
    sizes = {"d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_labels": 6}
    sizes |= {"encoder_layers": 2, "decoder_layers": 3, "num_queries": 9}
    config = transformers.DetrConfig(**sizes, backbone_config=resnet, use_timm_backbone=False)
    return transformers.DetrForSegmentation(config)


# --- Loading ---


@BOTH_LOADERS
@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"model": weights},
        lambda weights: {"model": weights, "optimizer": {}, "epoch": 299, "args": ARGUMENTS},
        lambda weights: {"model": {f"detr.{name}": tensor for name, tensor in weights.items()}},
        lambda weights: {f"module.{name}": tensor for name, tensor in weights.items()},
    ],
    ids=["released", "training", "wrapper", "distributed"],
)
def test_files_of_the_reference(
    load, wrap, save, make_cfg, reference, expected_of_reference, assert_holds
):
    model = load(make_cfg(), save(wrap(reference.state_dict())))
    assert_holds(model, expected_of_reference(reference))


@BOTH_LOADERS
def test_files_of_hugging_face(load, save, make_cfg, hugging_face):
    """All of the file arrives; where each tensor belongs is the same for all loaders."""
    weights = hugging_face.state_dict()
    model = load(make_cfg(), save(weights, "pytorch_model.bin"))
    state = model.state_dict()
    assert len(state) == len(weights)
    layer = "layers.1"
    for own, theirs in [
        ("detector.input_proj", "detr.model.input_projection"),
        ("detector.class_head", "detr.class_labels_classifier"),
        (
            f"detector.transformer.encoder_{layer}.feed_forward.3",
            f"detr.model.encoder.{layer}.mlp.fc2",
        ),
        ("mask_head.output_conv", "mask_head.output_conv"),
    ]:
        assert torch.equal(state[f"{own}.weight"], weights[f"{theirs}.weight"])


def test_the_predictor_predicts_with_what_it_loaded(save, make_cfg, reference):
    path, cfg = save({"model": reference.state_dict(), "args": ARGUMENTS}), make_cfg()
    cfg.MODEL.WEIGHTS = path
    cfg.MODEL.DETR.TEST.SCORE_THRESH = 0.0
    cfg.INPUT.MIN_SIZE_TEST = 64
    output = DefaultPredictor(cfg)(np.full((48, 64, 3), 99, np.uint8))
    assert output["panoptic_seg"][0].shape == (48, 64)
    assert output["instances"].pred_masks.shape[1:] == (48, 64)


def test_a_backbone_loads_where_training_starts(save, make_model, make_torchvision, assert_holds):
    """As Detectron2's trainers use it: a model is in training mode until it is said otherwise."""
    resnet = make_torchvision([3, 4, 6, 3])
    model, path = make_model().train(), save(resnet.state_dict())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    DetectionCheckpointer(model).load(path)
    changed = {
        name for name, tensor in model.state_dict().items() if (tensor != before[name]).any()
    }
    assert changed == {name for name in before if name.startswith("detector.backbone.")}
    assert torch.equal(model.detector.backbone.stem.conv1.weight, resnet.conv1.weight)
    with pytest.raises(CheckpointError, match="it is a backbone to train from, and not a trained"):
        DetectionCheckpointer(make_model().eval()).load(path)


# --- Refusing ---


def without(weights: dict, name: str) -> dict:
    return {key: tensor for key, tensor in weights.items() if key != name}


@BOTH_LOADERS
def test_files_that_are_no_detr(load, save, make_cfg):
    maskrcnn = {"backbone.bottom_up.stem.conv1.weight": torch.zeros(64, 3, 7, 7)}
    with pytest.raises(CheckpointError, match="No tensor belongs to a DETR: backbone.bottom_up"):
        load(make_cfg(), save({"model": maskrcnn}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"detr.query_embed.weight": torch.zeros(100, 32)},
            "it has 100 queries, MODEL.DETR.NUM_QUERIES is 9",
        ),
        (
            {
                "detr.class_embed.weight": torch.zeros(92, 32),
                "detr.class_embed.bias": torch.ones(92),
            },
            "the file's 92 rows are COCO's category ids",
        ),
        (
            {"detr.backbone.1.row_embed.weight": torch.zeros(50, 16)},
            r"in the file, but not in the model: detr\.backbone\.1\.row_embed\.weight",
        ),
        (
            {"detr.input_proj.bias": torch.full((32,), torch.nan)},
            r"detector\.input_proj\.bias: NaN or infinite in the file",
        ),
        (
            {"detr.more.weight": torch.zeros(1)},
            r"tensors that such a model doesn't have: detr\.more\.weight",
        ),
    ],
    ids=["queries", "classes", "left over", "NaN", "unknown"],
)
def test_files_that_do_not_fit(save, make_cfg, reference, change, message):
    path = save({"model": {**reference.state_dict(), **change}})
    with pytest.raises(CheckpointError, match=message):
        by_checkpointer(make_cfg(), path)


@BOTH_LOADERS
@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("detr.class_embed.bias", "detector.class_head.bias"),
        ("bbox_attention.q_linear.weight", "mask_head.attention_map.q_proj.weight"),
    ],
)
def test_files_that_lack_something(load, save, make_cfg, reference, name, own):
    path = save({"model": without(reference.state_dict(), name)})
    with pytest.raises(CheckpointError, match=f"missing in the file: {re.escape(own)}"):
        load(make_cfg(), path)


def test_a_name_that_both_sides_have(save, make_cfg, hugging_face):
    """Detectron2 drops it where it has another shape than the model's; still it is missed."""
    weights = {**hugging_face.state_dict(), "mask_head.output_conv.bias": torch.zeros(7)}
    with pytest.raises(CheckpointError, match=r"missing in the file: mask_head\.output_conv\.bias"):
        by_checkpointer(make_cfg(), save(weights))


def test_settings_that_all_files_of_a_kind_share(save, make_cfg, reference):
    cfg = make_cfg({"MODEL.DETR.MASK_HEAD.ATTENTION_SOFTMAX": "per_head"})
    with pytest.raises(CheckpointError, match="ATTENTION_SOFTMAX is 'per_head', the file was made"):
        by_predictor(cfg, save({"model": reference.state_dict()}))


# --- This project's own names: as with every module of PyTorch ---


def test_own_names_load_as_everywhere(save, make_model, make_cfg, assert_holds):
    weights = {name: tensor + 1 for name, tensor in make_model().state_dict().items()}
    for load in (by_predictor, by_checkpointer):
        assert_holds(load(make_cfg(), save({"model": weights})), weights)
    model = make_model()
    result = model.load_state_dict(weights)
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    assert_holds(model, weights)


def test_own_names_keep_strictness_and_assignment(make_model):
    model = make_model()
    weights = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    bias = weights.pop("detector.input_proj.bias")
    weights["detector.more.bias"] = bias
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"detector\.input_pr"):
        model.load_state_dict(weights)
    result = model.load_state_dict(weights, strict=False, assign=True)
    assert result.missing_keys == ["detector.input_proj.bias"]
    assert result.unexpected_keys == ["detector.more.bias"]
    query_embed = model.detector.query_embed.weight
    assert query_embed.data_ptr() == weights["detector.query_embed.weight"].data_ptr()
    with pytest.raises(RuntimeError, match="size mismatch for detector.class_head.bias"):
        model.load_state_dict({"detector.class_head.bias": torch.zeros(99)}, strict=False)
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict({})
    assert model.load_state_dict({}, strict=False).unexpected_keys == []


@pytest.mark.parametrize("assign", [False, True])
def test_what_keeps_its_initial_values_is_not_missed(make_model, make_reference, assign):
    """A bare detector, to train the mask head on it, though loading is strict."""
    model = make_model().train()
    kept = dict(model.mask_head.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in kept.items()}
    weights = make_reference().state_dict()
    result = model.load_state_dict(weights, assign=assign)
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    assert torch.equal(model.detector.query_embed.weight, weights["query_embed.weight"])
    for name, parameter in model.mask_head.named_parameters():
        assert parameter is kept[name] and torch.equal(parameter, before[name])

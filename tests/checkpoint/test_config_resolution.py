"""Resolved configs, and configs that models are built from: which stay as they are."""

from __future__ import annotations

import copy
import logging
import pickle

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

from detr_d2 import resolve_config
from detr_d2.data.dataset_mapper import DetrDatasetMapper
from detr_d2.engine.trainer import prepare
from detr_d2.predictor import Predictor


@pytest.fixture
def make_cfg(make_tiny_cfg, tmp_path):
    """Configs of a tiny model whose dataset tells its classes: ``(*overrides, frozen=False)``."""

    def make(*overrides: object, frozen: bool = False) -> CfgNode:
        cfg = make_tiny_cfg(tmp_path / "out", "MODEL.DETR.NUM_CLASSES", 0, *overrides)
        if frozen:
            cfg.freeze()
        return cfg

    return make


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


BOTH = pytest.mark.parametrize("frozen", [False, True])


@BOTH
def test_what_is_left_open_is_filled_in(make_cfg, without_gpu, frozen, caplog):
    cfg = make_cfg("MODEL.DEVICE", "cuda:1", frozen=frozen)
    before = cfg.clone()
    with caplog.at_level(logging.INFO):
        resolved = resolve_config(cfg)
    assert cfg == before and cfg.is_frozen() == resolved.is_frozen() == frozen
    assert (resolved.MODEL.DEVICE, resolved.MODEL.DETR.NUM_CLASSES) == ("cpu", 12)
    assert "No GPU found for MODEL.DEVICE 'cuda:1'" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        again = resolve_config(resolved)
    assert again == resolved and again is not resolved and not caplog.records
    resolved.defrost()
    resolved.MODEL.DEVICE, resolved.MODEL.DETR.NUM_CLASSES = "cuda:1", 0
    assert resolved == cfg


def test_a_gpu_that_is_there_stays(make_cfg, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_config(make_cfg("MODEL.DEVICE", "cuda:1")).MODEL.DEVICE == "cuda:1"


def test_values_that_cannot_work_are_refused(make_cfg):
    cfg = make_cfg()
    cfg.MODEL.DETR.DROPOUT = 2.0
    with pytest.raises(ValueError, match="^MODEL.DETR.DROPOUT is 2.0, but must be"):
        resolve_config(cfg)


@BOTH
@pytest.mark.parametrize(
    "build",
    [
        build_model,
        DefaultPredictor,
        Predictor,
        prepare,
        lambda cfg: DetrDatasetMapper(cfg, is_train=True),
    ],
    ids=["build_model", "DefaultPredictor", "Predictor", "prepare", "mapper"],
)
def test_nothing_that_is_built_changes_its_config(make_cfg, build, frozen):
    cfg = make_cfg(frozen=frozen)
    before = cfg.clone()
    build(cfg)
    assert cfg == before and cfg.is_frozen() == frozen


@BOTH
def test_a_missing_gpu_alone_shows_in_the_config_of_a_model(make_cfg, without_gpu, frozen):
    """Detectron2 takes the device out of it after that: to move the model, and its images."""
    cfg = make_cfg("MODEL.DEVICE", "cuda", frozen=frozen)
    before = cfg.clone()
    assert build_model(cfg).device.type == "cpu"
    assert cfg.MODEL.DEVICE == "cpu" and cfg.is_frozen() == frozen
    cfg.defrost()
    cfg.MODEL.DEVICE = "cuda"
    assert cfg == before
    resolved = resolve_config(before)
    build_model(resolved)
    assert resolved == resolve_config(before)


@BOTH
@pytest.mark.parametrize("build", [DefaultPredictor, Predictor])
def test_predictors_without_a_gpu(make_cfg, without_gpu, frozen, build):
    cfg = make_cfg("MODEL.DEVICE", "cuda", "INPUT.MIN_SIZE_TEST", 64, frozen=frozen)
    before = cfg.clone()
    output = build(cfg)(np.full((48, 64, 3), 99, np.uint8))
    assert output["panoptic_seg"][0].shape == (48, 64)
    assert cfg == before and cfg.is_frozen() == frozen


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_of_a_model_take_weights_of_any_kind_for_themselves(make_cfg, copied):
    model = build_model(make_cfg())
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = copied(model)
    other.load_state_dict({f"module.{name}": tensor + 1 for name, tensor in weights.items()})
    for name, tensor in weights.items():
        assert torch.equal(model.state_dict()[name], tensor)
        assert torch.equal(other.state_dict()[name], tensor + 1)

"""Checkpoints load completely or not at all, and say what they are."""

from __future__ import annotations

import logging
import os
import pickle
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from detr_d2.checkpoint import CheckpointError, CheckpointNotFoundError
from detr_d2.data.categories import PanopticClasses, default_color
from detr_d2.engine import train
from detr_d2.engine.checkpointer import StrictCheckpointer

CLASS_HEAD = ("detector.class_head.weight", "detector.class_head.bias")
FROZEN = ("MODEL.DETR.FREEZE_DETECTOR", True)
RESIZE = ("MODEL.DETR.RESIZE_ON_LOAD", True)
NO_DATASET = ("DATASETS.TRAIN", (), "DATASETS.TEST", ())


@pytest.fixture(scope="module")
def make_model(make_tiny_cfg, tmp_path_factory):
    """Builds tiny models of 12 classes: ``(*overrides, names=None)``, names of other classes."""
    cfg = make_tiny_cfg(tmp_path_factory.mktemp("checkpoint"))

    def make(*overrides: object, names: tuple[str, ...] = ()) -> nn.Module:
        changed = cfg.clone()
        if names:
            overrides = (*NO_DATASET, "MODEL.DETR.NUM_CLASSES", len(names), *overrides)
        changed.merge_from_list(list(overrides))
        model = build_model(changed)
        if names:
            ids = tuple(np.arange(len(names)))  # not Python's own integers, as users may have
            classes = PanopticClasses(tuple(names), ids, (True,) * len(names))
            model.loading_rules = replace(model.loading_rules, classes=classes)
        return model

    return make


@pytest.fixture(scope="module")
def model(make_model) -> nn.Module:
    return make_model()


@pytest.fixture
def save_weights(model, tmp_path):
    """Writes weights unlike those of the model, after a change; returns the path and them."""

    def save(change=lambda weights: None, **content: object):
        weights = OrderedDict((k, v + 1) for k, v in model.state_dict().items())
        change(weights)
        path = str(tmp_path / "weights.pth")
        torch.save({"model": weights, **content}, path)
        return path, weights

    return save


def save_checkpoint(model: nn.Module, folder: Path) -> str:
    """Writes a model as training does; returns the path."""
    StrictCheckpointer(model, str(folder)).save("saved", iteration=3)
    return str(folder / "saved.pth")


def as_of_older_versions(path: str) -> None:
    """Leaves out what they didn't write: all of the classes but names and ids."""
    content = torch.load(path, weights_only=True)
    for key in ("is_thing", "colors"):
        del content["detr_d2"][key]
    torch.save(content, path)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_loaded(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    found = model.state_dict()
    assert [k for k, v in weights.items() if k in found and not torch.equal(found[k], v)] == []


# --- loading ---


def test_a_file_of_another_process_group_loads(model, save_weights):
    """Distributed training wraps the model; weights alone, without a dict around, load as well."""
    path, weights = save_weights()
    torch.save({f"module.{key}": value for key, value in weights.items()}, path)
    StrictCheckpointer(model).load(path)
    assert_loaded(model, weights)


def test_what_does_not_fit_is_named_with_its_file(model, save_weights):
    path, _ = save_weights(lambda weights: weights.pop("detector.query_embed.weight"))
    with pytest.raises(CheckpointError) as caught:
        StrictCheckpointer(model, to_train=True).load(path)
    assert str(caught.value) == (
        f"{path} doesn't fit the model that the config describes. Recognised as one of this "
        "project (detector and mask head):\n  missing in the file: detector.query_embed.weight"
    )
    path, _ = save_weights(lambda weights: weights.clear())
    with pytest.raises(CheckpointError, match=r"weights\.pth: it holds no tensors"):
        StrictCheckpointer(model).load(path)
    with pytest.raises(CheckpointNotFoundError, match=r"nowhere\.pth"):
        StrictCheckpointer(model).load("nowhere.pth")


def test_a_backbone_of_detectron2s_model_zoo_loads(model, tmp_path):
    """Its names are matched by their ends, and the rest of the model stays as it is."""
    prefix = "detector.backbone."
    before = state(model)
    backbone = {
        key.removeprefix(prefix): (value + 2).numpy()
        for key, value in before.items()
        if key.startswith(prefix)
    }
    content = {"model": backbone, "__author__": "test", "matching_heuristics": True}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(content))
    StrictCheckpointer(model, to_train=True).load(str(path))
    expected = {k: v + 2 if k.startswith(prefix) else v for k, v in before.items()}
    assert_loaded(model, expected)


def test_a_backbone_that_would_run_code_does_not(model, tmp_path):
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"model": os.getcwd}))
    with pytest.raises(CheckpointError, match=r"R-50\.pkl wants \w+\.getcwd to be unpickled"):
        StrictCheckpointer(model, to_train=True).load(str(path))


def test_no_path_loads_nothing(model):
    before = state(model)
    assert StrictCheckpointer(model).load("") == {}
    assert_loaded(model, before)


def test_what_a_file_holds_beside_the_model(model, save_weights):
    """Goes to those that save their state, or is returned."""

    theirs, ours = nn.Linear(1, 1), nn.Linear(1, 1)
    path, _ = save_weights(counter=theirs.state_dict(), iteration=7)
    checkpointer = StrictCheckpointer(model, counter=ours)
    rest = checkpointer.load(path, checkpointables=[])
    assert rest.keys() == {"counter", "iteration"}
    assert not torch.equal(ours.weight, theirs.weight)
    assert checkpointer.load(path) == {"iteration": 7}
    assert torch.equal(ours.weight, theirs.weight)


# --- saving ---


def test_checkpoints_hold_nothing_but_tensors_and_plain_values(finished_run):
    """So that they load where running code of a file is forbidden."""
    for stage in ("boxes", "masks"):
        for path in (finished_run.folder / stage).glob("*.pth"):
            content = torch.load(path, weights_only=True)
            assert content.keys() >= {"model", "trainer", "iteration", "detr_d2"}
            assert content["trainer"].keys() >= {"iteration", "optimizer", "hooks"}


def test_checkpoints_say_what_they_are(make_model, tmp_path):
    path = save_checkpoint(make_model(names=("sea", "sky")), tmp_path)
    content = torch.load(path, weights_only=True)
    assert content["iteration"] == 3
    assert content["detr_d2"] == {
        "class_names": ["sea", "sky"],
        "dataset_ids": [0, 1],
        "is_thing": [True, True],
        "colors": [list(default_color(k, True)) for k in range(2)],
        "settings": {
            "num_heads": 4,
            "pre_norm": True,
            "position_embedding": "sine",
            "position_temperature": 20.0,
            "res5_dilation": 2,
            "mask_head": "AttentionMaskHead",
            "attention_softmax": "per_head",
            "stride_in_1x1": False,
            "input_format": "RGB",
            "backbone": "ResNet",
            "output_stride": None,
        },
    }
    content = torch.load(save_checkpoint(make_model(*NO_DATASET), tmp_path), weights_only=True)
    del content["detr_d2"]["settings"]
    assert all(values == [] for values in content["detr_d2"].values())


def test_older_checkpoints_say_nothing_and_load(make_model, save_weights, caplog):
    path, weights = save_weights()
    for overrides in ((), FROZEN, RESIZE, NO_DATASET):
        model = make_model(*overrides)
        StrictCheckpointer(model).load(path)
        assert_loaded(model, weights)
    assert "weights.pth" not in caplog.text


# --- classes ---


def test_other_classes_of_the_same_number_are_noticed(make_model, tmp_path, caplog):
    names, others = ("cat", "dog", "7"), ("cat", "fish", "7")
    path = save_checkpoint(make_model(names=names), tmp_path)
    StrictCheckpointer(make_model(*FROZEN, names=names)).load(path)
    differ = "only the file has dog; only the dataset has fish."
    for to_train in (False, True):
        with pytest.raises(CheckpointError, match=f"{differ} To start.*RESIZE_ON_LOAD True"):
            StrictCheckpointer(make_model(names=others), to_train=to_train).load(path)
    for more in ((), RESIZE):
        with pytest.raises(CheckpointError, match=f"{differ} The detector is frozen"):
            StrictCheckpointer(make_model(*FROZEN, *more, names=others), to_train=True).load(path)
    as_of_older_versions(path)
    StrictCheckpointer(make_model(names=others)).load(path)
    assert f"{path}: The classes of the file and of the dataset differ: {differ}" in caplog.text
    with pytest.raises(CheckpointError, match=f"{differ} The detector is frozen"):
        StrictCheckpointer(make_model(*FROZEN, names=others), to_train=True).load(path)


@pytest.mark.parametrize("described", [True, False])
def test_classes_of_the_same_name_keep_their_rows(make_model, tmp_path, described):
    theirs = make_model(names=("sea", "Sky", "ball", "8"))
    path, weights = save_checkpoint(theirs, tmp_path), state(theirs)
    rows = {0: 2, 6: 1} if described else {}  # of the ball and the sky
    if not described:
        torch.save(weights, path)
    refused = "the file has 4 classes, MODEL.DETR.NUM_CLASSES is 12"
    for overrides, to_train in (((), True), ((*RESIZE, *FROZEN), True), (RESIZE, False)):
        with pytest.raises(CheckpointError, match=refused):
            StrictCheckpointer(make_model(*overrides), to_train=to_train).load(path)
    model = make_model(*RESIZE)
    fresh = state(model)
    StrictCheckpointer(model, to_train=True).load(path)
    for name in CLASS_HEAD:
        expected = [weights[name][rows[k]] if k in rows else fresh[name][k] for k in range(12)]
        weights[name] = torch.stack([*expected, weights[name][4]])
    assert_loaded(model, weights)


@pytest.mark.parametrize("overrides", [(), FROZEN, RESIZE])
def test_names_in_another_order_are_put_in_the_datasets(make_model, tmp_path, overrides):
    """Of a file that tells no more of its classes."""
    names = ("cat", "dog", "A", "a", "sky")
    theirs, model = make_model(names=names), make_model(*overrides, names=names[::-1])
    nn.init.normal_(theirs.detector.class_head.bias)
    path = save_checkpoint(theirs, tmp_path)
    with pytest.raises(CheckpointError, match=r"'cat' has the id 0 in the file and 4 in the datas"):
        StrictCheckpointer(model).load(path)
    as_of_older_versions(path)
    StrictCheckpointer(model).load(path)
    images = [{"image": torch.arange(3 * 64 * 64).view(3, 64, 64) % 256}]
    with torch.no_grad():
        ours, other = (
            m.detector(m.preprocess(images)).logits for m in (model.eval(), theirs.eval())
        )
    torch.testing.assert_close(ours, other[..., [4, 3, 2, 1, 0, 5]])


@pytest.mark.parametrize(
    ("num_rows", "dataset", "num_classes"),
    [(251, "coco_2017_val_panoptic", 133), (92, "coco_2017_val", 80)],
)
def test_released_heads_are_cut(make_model, model, save_weights, num_rows, dataset, num_classes):
    values = torch.arange(num_rows).float()

    def change(weights: dict, num_rows: int = num_rows) -> None:
        weight = values[:num_rows, None].expand(-1, 32)
        weights.update(zip(CLASS_HEAD, (weight, values), strict=True))

    path, _ = save_weights(change)
    refused = rf"{num_rows} rows are COCO's category ids, and .* are not: 12 \('bush'\)"
    with pytest.raises(CheckpointError, match=refused):
        StrictCheckpointer(model).load(path)
    overrides = (*NO_DATASET, "DATASETS.TEST", (dataset,), "MODEL.DETR.NUM_CLASSES", num_classes)
    for more in ((), FROZEN, RESIZE):
        cut = make_model(*overrides, *more)
        StrictCheckpointer(cut).load(path)
        expected = values[[*cut.loading_rules.classes.dataset_ids, num_rows - 1]]
        for name in CLASS_HEAD:
            found = cut.state_dict()[name].view(num_classes + 1, -1)
            assert torch.equal(found, expected[:, None].expand_as(found))

    path, _ = save_weights(lambda weights: change(weights, num_rows - 1))
    with pytest.raises(CheckpointError, match=rf"weight: \({num_rows - 1}, 32\) in the file"):
        StrictCheckpointer(cut).load(path)


# --- runs ---


@pytest.fixture
def other_classes(make_model, tmp_path) -> str:
    """A trained detector of other classes, one of which is the dataset's."""
    return save_checkpoint(make_model(names=("cat", "snow")), tmp_path)


def test_a_frozen_detector_of_other_classes_stops_a_run(make_tiny_cfg, tmp_path, other_classes):
    cfg = make_tiny_cfg(tmp_path / "run", "MODEL.DETR.FROZEN_WEIGHTS", other_classes, *RESIZE)
    with pytest.raises(CheckpointError, match=r"The detector is frozen .* train the stage 'boxes'"):
        train(cfg)
    assert not list(Path(cfg.OUTPUT_DIR).rglob("*.pth"))


def test_a_run_may_start_from_other_classes(make_tiny_cfg, tmp_path, other_classes, caplog):
    cfg = make_tiny_cfg(
        tmp_path / "run",
        *("MODEL.WEIGHTS", other_classes, "SOLVER.STAGES", ["joint"], "SOLVER.MAX_ITER", 1),
        *("DATASETS.TEST", (), *RESIZE),
    )
    with caplog.at_level(logging.INFO):
        train(cfg)
    assert "by name: 1 classes kept (snow), 11 fresh" in caplog.text
    trained = torch.load(Path(cfg.OUTPUT_DIR) / "joint" / "model_final.pth", weights_only=True)
    assert len(trained["detr_d2"]["class_names"]) == 12

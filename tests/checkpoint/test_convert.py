"""Conversion: what is written loads as the source would, or nothing is written."""

import argparse
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from safetensors.torch import save_file
from torch import nn

from detr_d2.checkpoint import (
    CheckpointError,
    CheckpointNotFoundError,
    ModelSettings,
    convert_file,
    read_checkpoint,
)
from detr_d2.checkpoint import parameter_names as names
from detr_d2.data.categories import classes_of
from detr_d2.engine.checkpointer import StrictCheckpointer

VAL = "small_shapes_val"
# What other projects always have.
AS_OTHERS = (
    *("MODEL.DETR.MASK_HEAD.ATTENTION_SOFTMAX", "joint", "MODEL.DETR.PRE_NORM", False),
    *("MODEL.DETR.POSITION_TEMPERATURE", 10000.0),
)


@pytest.fixture(scope="module")
def cfg(make_tiny_cfg, tmp_path_factory):
    return make_tiny_cfg(tmp_path_factory.mktemp("convert"), *AS_OTHERS)


@pytest.fixture(scope="module")
def model(cfg) -> nn.Module:
    """The model that sources hold."""
    torch.manual_seed(0)
    return build_model(cfg)


def their_name(table: names.Names, module: str) -> str | None:
    """What another project calls a module of ours."""
    for theirs, own in table.items():
        match = re.fullmatch(re.escape(own).replace(r"\#", r"(\d+)"), module)
        if match:
            return theirs.replace("#", "{}").format(*match.groups())
    return None


def renamed(weights: Mapping[str, torch.Tensor], table: names.Names) -> dict[str, torch.Tensor]:
    """Tensors as another project has them; the reference keeps attention's three in one."""
    result: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        module, _, leaf = name.rpartition(".")
        theirs = their_name(table, module)
        if theirs is None:
            theirs, leaf = their_name(table, module.rpartition(".")[0]), f"in_proj_{leaf}"
            before = result.get(f"{theirs}.{leaf}", tensor[:0])
            tensor = torch.cat([before, tensor])
        result[f"{theirs}.{leaf}"] = tensor.contiguous()
    return result


Source = Callable[[str], str]


@pytest.fixture
def make_source(model, tmp_path) -> Source:
    """Writes the model as one of this project, the reference or Hugging Face; returns the path."""

    def make(kind: str) -> str:
        folder = tmp_path / kind
        folder.mkdir()
        if kind == "own":
            StrictCheckpointer(model, str(folder)).save("source", iteration=3)
            return str(folder / "source.pth")
        if kind == "reference":
            args = argparse.Namespace(nheads=4, position_embedding="sine", dilation=True)
            weights = renamed(model.state_dict(), names.REFERENCE)
            torch.save({"model": weights, "args": args, "epoch": 3}, folder / "source.pth")
            return str(folder / "source.pth")
        heads = {f"{part}_attention_heads": 4 for part in ("encoder", "decoder")}
        labels = dict(enumerate(classes_of(VAL).names))
        config = {"model_type": "detr", "id2label": labels, "dilation": True, **heads}
        (folder / "config.json").write_text(json.dumps(config))
        weights = renamed(model.state_dict(), names.HUGGING_FACE)
        save_file(weights, folder / "model.safetensors")
        return str(folder)

    return make


@pytest.mark.parametrize("kind", ["own", "reference", "hugging_face"])
def test_what_is_written_loads_as_the_source(kind, make_source, model, cfg, tmp_path):
    source, output = make_source(kind), tmp_path / "new" / "folder" / "output.pth"
    convert_file(source, output)
    content = torch.load(output, weights_only=True)
    assert content.keys() == {"model", "detr_d2"}
    assert not [name for name in content["model"] if "in_proj" in name]
    for path in (source, str(output)):
        torch.manual_seed(1)
        loaded = build_model(cfg)
        StrictCheckpointer(loaded).load(path)
        state, expected = loaded.state_dict(), model.state_dict()
        assert [name for name in expected if not torch.equal(state[name], expected[name])] == []
    assert [path.name for path in output.parent.iterdir()] == ["output.pth"]


@pytest.mark.parametrize("kind", ["own", "reference", "hugging_face"])
def test_settings_and_names_survive(kind, make_source, cfg, tmp_path):
    source = read_checkpoint(make_source(kind))
    convert_file(source.origin, tmp_path / "output.pth")
    output = read_checkpoint(str(tmp_path / "output.pth"))
    assert output.settings == source.settings
    assert output.settings.num_heads == 4 and output.settings.attention_softmax == "joint"
    assert output.class_names == source.class_names
    if kind != "reference":
        assert output.class_names == classes_of(VAL).names
    if kind == "own":
        assert output.settings == ModelSettings.from_config(cfg, has_resnet=True)


def test_other_settings_survive(tmp_path):
    """All that the reference's arguments may say; nothing where it says nothing."""
    args = argparse.Namespace(nheads=2, pre_norm=True, position_embedding="learned", dilation=True)
    said = {"num_heads": 2, "pre_norm": True, "position_embedding": "learned", "res5_dilation": 2}
    for content, expected in (({"args": args}, said), ({}, dict.fromkeys(said))):
        source, output = tmp_path / f"{len(content)}.pth", tmp_path / f"{len(content)}_output.pth"
        torch.save({"model": head_of(5), **content}, source)
        convert_file(str(source), output)
        settings = read_checkpoint(str(output)).settings
        assert settings == read_checkpoint(str(source)).settings
        assert settings.to_dict().items() >= {**expected, "attention_softmax": "joint"}.items()


def test_converting_again_changes_nothing(make_source, tmp_path):
    first, second = tmp_path / "first.pth", tmp_path / "second.pth"
    convert_file(make_source("hugging_face"), first)
    convert_file(str(first), second)
    contents = [torch.load(path, weights_only=True) for path in (first, second)]
    assert contents[0]["detr_d2"] == contents[1]["detr_d2"]
    weights = [content["model"] for content in contents]
    assert list(weights[0]) == list(weights[1])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_no_tensor_is_written_with_what_it_is_a_part_of(tmp_path):
    parts = {name: torch.zeros(100_000)[:2].expand_as(x) for name, x in head_of(2).items()}
    torch.save(parts, tmp_path / "source.pth")
    convert_file(str(tmp_path / "source.pth"), tmp_path / "output.pth")
    sizes = [(tmp_path / f"{name}.pth").stat().st_size for name in ("source", "output")]
    assert sizes[0] > 400_000 and sizes[1] < 10_000


def test_a_backbone_alone(model, cfg, tmp_path):
    """A source without a class head is one to train from, and stays so."""
    prefix = names.BACKBONE
    table = {theirs: prefix + own for theirs, own in names.TORCHVISION_RESNET.items()}
    is_learned = re.compile(rf"{prefix}.*(weight|bias|mean|var)").fullmatch
    backbone = {name: x + 1 for name, x in model.state_dict().items() if is_learned(name)}
    source = {**renamed(backbone, table), "fc.weight": torch.ones(1), "fc.bias": torch.ones(1)}
    torch.save(source, tmp_path / "resnet.pth")
    said = convert_file(str(tmp_path / "resnet.pth"), tmp_path / "output.pth")
    assert "a ResNet of torchvision (backbone)" in said and "fc.*" in said
    loaded = build_model(cfg)
    StrictCheckpointer(loaded, to_train=True).load(str(tmp_path / "output.pth"))
    state = loaded.state_dict()
    assert [name for name in backbone if not torch.equal(state[name], backbone[name])] == []
    with pytest.raises(CheckpointError, match=r"resnet\.pth has no class head that could be cut"):
        convert_file(str(tmp_path / "resnet.pth"), tmp_path / "cut.pth", VAL)


# --- Class heads ---


def head_of(num_rows: int) -> dict[str, torch.Tensor]:
    """A class head of the reference whose rows tell their numbers, and what it is recognised by."""
    rows = torch.arange(float(num_rows))
    return {
        "transformer.encoder.layers.0.linear1.weight": torch.eye(2),
        "class_embed.weight": rows[:, None].repeat(1, 2),
        "class_embed.bias": rows,
    }


@pytest.fixture
def convert_head(tmp_path) -> Callable[..., dict]:
    """Converts a class head: ``(num_rows, dataset_name, **content)``; returns what was written."""

    def convert(num_rows: int, dataset_name: str | None, **content: object) -> dict:
        torch.save({"model": head_of(num_rows), **content}, tmp_path / "head.pth")
        convert_file(str(tmp_path / "head.pth"), tmp_path / "output.pth", dataset_name)
        return torch.load(tmp_path / "output.pth", weights_only=True)

    return convert


@pytest.mark.parametrize(
    ("num_rows", "dataset_name", "num_classes"),
    [
        (251, "coco_2017_val_panoptic", 133),
        (251, "coco_2017_val", 80),
        (92, "coco_2017_val", 80),
        (92, "coco_2017_train", 80),
    ],
)
def test_heads_by_cocos_ids_are_cut(num_rows, dataset_name, num_classes, convert_head):
    content = convert_head(num_rows, dataset_name)
    classes = classes_of(dataset_name)
    rows = [float(i) for i in (*classes.dataset_ids, num_rows - 1)]
    assert len(rows) == num_classes + 1
    assert content["model"]["detector.class_head.bias"].tolist() == rows
    assert content["model"]["detector.class_head.weight"].T.tolist() == [rows, rows]
    assert tuple(content["detr_d2"]["class_names"]) == classes.names
    assert tuple(content["detr_d2"]["dataset_ids"]) == classes.dataset_ids


def test_without_a_dataset_all_rows_stay(convert_head):
    content = convert_head(251, None)
    assert content["model"]["detector.class_head.bias"].tolist() == list(range(251))
    assert content["detr_d2"]["class_names"] == []


@pytest.mark.parametrize(
    ("num_rows", "dataset_name", "message"),
    [
        (92, "coco_2017_val_panoptic", r"head\.pth: .*up to 90: it has none for 92 \('banner'\)"),
        (251, VAL, r"head\.pth: its classes don't fit the dataset: the file's 251 rows are COCO's"),
        (20, "coco_2017_val", r"head\.pth: .*the file has 19 classes, .* is 80"),
        (92, "no_such_dataset", "No classes are known for a dataset 'no_such_dataset'"),
    ],
)
def test_datasets_that_do_not_fit(num_rows, dataset_name, message, convert_head, tmp_path):
    with pytest.raises(ValueError, match=message):
        convert_head(num_rows, dataset_name)
    assert [path.name for path in tmp_path.iterdir()] == ["head.pth"]


def test_as_many_classes_of_other_names_are_none_of_the_dataset(tmp_path):
    num_classes = len(classes_of(VAL).names)
    own = {
        "detector.class_head.weight": torch.zeros(num_classes + 1, 2),
        "detector.class_head.bias": torch.zeros(num_classes + 1),
    }
    others = [f"sort {i}" for i in range(num_classes)]
    torch.save({"model": own, "detr_d2": {"class_names": others}}, tmp_path / "others.pth")
    with pytest.raises(CheckpointError, match=r"others\.pth: The classes .* differ: .*sort 0"):
        convert_file(str(tmp_path / "others.pth"), tmp_path / "output.pth", VAL)
    assert not (tmp_path / "output.pth").exists()


# --- What isn't written ---


def test_what_is_there_already_stays(make_source, tmp_path):
    output = tmp_path / "output.pth"
    output.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=r"output\.pth is there already"):
        convert_file(make_source("own"), output)
    assert output.read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["output.bin", "output", "output.pkl", "output.safetensors"])
def test_other_suffixes_are_refused(name, make_source, tmp_path):
    with pytest.raises(ValueError, match=rf"{name}: the name .* has to end in \.pth"):
        convert_file(make_source("own"), tmp_path / name)
    assert not (tmp_path / name).exists()


def test_sources_that_cannot_be_read(tmp_path):
    (tmp_path / "damaged.pth").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"damaged\.pth cannot be read"):
        convert_file(str(tmp_path / "damaged.pth"), tmp_path / "new" / "output.pth")
    with pytest.raises(CheckpointNotFoundError, match=r"gone\.pth"):
        convert_file(str(tmp_path / "gone.pth"), tmp_path / "new" / "output.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.pth"]


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RuntimeError("[enforce fail]")])
@pytest.mark.parametrize("where", ["save", "replace"])
def test_nothing_is_half_written(where, error, make_source, tmp_path, monkeypatch):
    source, output = make_source("own"), tmp_path / "new" / "output.pth"

    def fail(content: object, path: Path) -> None:
        if where == "save":
            path.write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(*((torch, "save") if where == "save" else (os, "replace")), fail)
    with pytest.raises(OSError, match=r"No space left|output\.pth can't be written"):
        convert_file(source, output)
    assert list(output.parent.iterdir()) == []

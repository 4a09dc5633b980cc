"""What is read of files and folders, and what is said of those that are missing."""

import io
import json
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from detr_d2.checkpoint import CheckpointError, CheckpointNotFoundError, read_checkpoint
from detr_d2.checkpoint import weight_files as files
from detr_d2.checkpoint.weight_files import read_file

# Enough for a file to be recognised.
WEIGHTS = {
    "layer1.0.conv1.weight": torch.arange(12.0).reshape(3, 4),
    "layer1.0.bn1.weight": torch.ones(3, dtype=torch.float16),
    "layer1.0.bn1.num_batches_tracked": torch.tensor(7),
}
OTHERS = {"epoch": 3, "args": Namespace(nheads=8), "optimizer": {"state": {}, "param_groups": []}}
CONFIG = {"model_type": "detr", "encoder_attention_heads": 8, "id2label": {"0": "cat"}}


def saved(content: object, **options: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def assert_equal(weights: dict, expected: dict) -> None:
    assert list(weights) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(weights[name], tensor) and weights[name].dtype == tensor.dtype
        assert weights[name].device.type == "cpu"


# --- What is read ---


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
@pytest.mark.parametrize("file_name", ["weights.pth", "pytorch_model.bin", "weights", "w.tar.gz"])
@pytest.mark.parametrize("key", [None, "model", "state_dict", "model_state", "model_state_dict"])
def test_the_state_dict_is_found(key, file_name, options, tmp_path):
    content = WEIGHTS if key is None else {key: OrderedDict(WEIGHTS), **OTHERS}
    (tmp_path / file_name).write_bytes(saved(content, **options))
    read = read_file(tmp_path / file_name)
    assert_equal(read["model"], WEIGHTS)
    assert {name: read[name] for name in read.keys() - {"model", key}} == (OTHERS if key else {})


def test_model_is_preferred(tmp_path):
    (tmp_path / "w.pth").write_bytes(saved({"model": WEIGHTS, "state_dict": {}, "model_state": {}}))
    assert_equal(read_file(tmp_path / "w.pth")["model"], WEIGHTS)


@pytest.mark.parametrize("name", ["weights.safetensors", "model.safetensors?download=true"])
def test_safetensors(name, tmp_path):
    (tmp_path / name).write_bytes(save(WEIGHTS))
    read = read_file(str(tmp_path / name))
    assert read.keys() == {"model"}
    assert_equal(dict(sorted(read["model"].items())), dict(sorted(WEIGHTS.items())))


@pytest.fixture
def hugging_face(tmp_path: Path) -> Path:
    """A folder as ``save_pretrained`` writes it, with both kinds of weights."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    torch.save(WEIGHTS, tmp_path / "pytorch_model.bin")
    return tmp_path


def test_a_folder_of_hugging_face(hugging_face):
    (hugging_face / "pytorch_model.bin").write_bytes(b"not looked at")
    read = read_file(hugging_face)
    assert read.keys() == {"model", "config"} and read["config"] == CONFIG
    assert read["model"].keys() == WEIGHTS.keys()
    (hugging_face / "model.safetensors").unlink()
    (hugging_face / "pytorch_model.bin").write_bytes(saved(WEIGHTS))
    assert read_file(str(hugging_face))["config"] == CONFIG
    assert_equal(read_file(hugging_face)["model"], WEIGHTS)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_file_in_such_a_folder_has_the_config_beside_it(hugging_face, name):
    read = read_file(hugging_face / name)
    assert read["config"] == CONFIG and read["model"].keys() == WEIGHTS.keys()
    torch.save(WEIGHTS, hugging_face / "of_another_name.bin")
    assert "config" not in read_file(hugging_face / "of_another_name.bin")
    for other in ('{"model_type": "vit"}', "{", "[]", None):
        (hugging_face / "config.json").unlink()
        if other is not None:
            (hugging_face / "config.json").write_text(other)
        assert read_file(hugging_face / name).keys() == {"model"}
        (hugging_face / "config.json").touch()


# --- What isn't there ---


@pytest.mark.parametrize("path", ["gone.pth", "gone/gone.pth", "file/gone.pth", "gone", "x" * 300])
def test_a_missing_path_is_named(path, tmp_path):
    (tmp_path / "file").write_bytes(saved(WEIGHTS))
    with pytest.raises(CheckpointNotFoundError, match=f"There is no checkpoint .*{path}") as caught:
        read_checkpoint(str(tmp_path / path))
    assert isinstance(caught.value, FileNotFoundError) and isinstance(caught.value, CheckpointError)
    assert str(caught.value) == f"There is no checkpoint {tmp_path / path}."


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def forbidden(path: Path, mode: str):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "weights.pth").write_bytes(saved(WEIGHTS))
    monkeypatch.setattr(files, "open", forbidden, raising=False)
    with pytest.raises(CheckpointError, match=r"weights\.pth cannot be read: Permission denied\.$"):
        read_checkpoint(str(tmp_path / "weights.pth"))


# --- Folders that are incomplete ---


@pytest.mark.parametrize(
    ("changed", "data", "where", "message"),
    [
        ("config.json", None, "", "is a folder without config.json: neither a checkpoint nor"),
        ("config.json", b'{"model_type": "vit"}', "config.json", "describes a model of type 'vit'"),
        ("config.json", b'{"a": 1}', "config.json", "describes a model of type None, not 'detr'."),
        ("config.json", b'{"model_type": {"a": []}}', "config.json", "describes a model of type"),
        ("config.json", b'["detr"]', "config.json", "describes a model of type 'list', not"),
        ("config.json", b'"detr"', "config.json", "describes a model of type 'str', not"),
        ("config.json", b"{", "config.json", "cannot be read as JSON (Expecting"),
        ("config.json", b"", "config.json", "cannot be read as JSON (Expecting"),
        ("config.json", b"\xff\xfe{", "config.json", "cannot be read as JSON ("),
        ("config.json", b"[" * 99999, "config.json", "cannot be read as JSON ("),
        ("config.json", b'{"model_type": "%s"}' % (b"v" * 9999), "config.json", "describes"),
        ("model.safetensors", None, "", "has no weights: neither model.safetensors nor pytorch_mo"),
        ("model.safetensors", b"", "model.safetensors", "is empty."),
        ("model.safetensors", b"version https://git-lfs", "model.safetensors", "is a pointer of"),
        ("model.safetensors.index.json", b"{}", "", "has its weights in several files."),
        ("pytorch_model.bin.index.json", b"{}", "", "has its weights in several files."),
    ],
)
def test_incomplete_folders(changed, data, where, message, hugging_face):
    (hugging_face / "pytorch_model.bin").unlink()
    if changed.startswith("pytorch_model"):
        (hugging_face / "model.safetensors").unlink()
    if data is None:
        (hugging_face / changed).unlink()
    else:
        (hugging_face / changed).write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(str(hugging_face))
    assert str(caught.value).startswith(f"{hugging_face / where} {message}")
    assert len(str(caught.value)) < 600 + len(str(hugging_face))


def test_a_folder_in_place_of_a_file(hugging_face):
    for name in ("config.json", "model.safetensors"):
        (hugging_face / name).unlink()
        (hugging_face / name).mkdir()
        with pytest.raises(CheckpointError, match=name):
            read_checkpoint(str(hugging_face))
        (hugging_face / name).rmdir()
        (hugging_face / name).write_text(json.dumps(CONFIG))

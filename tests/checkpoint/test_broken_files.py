"""Files that are damaged or something else: one error that names them, whatever they hold."""

import io
import json
import pickle
import random
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from detr_d2.checkpoint import CheckpointError, ModelSettings, check_pickle, read_checkpoint

# Enough for a file to be recognised.
WEIGHTS = {
    "layer1.0.conv1.weight": torch.arange(12.0).reshape(3, 4),
    "layer1.0.bn1.weight": torch.ones(3, dtype=torch.float16),
    "layer1.0.bn1.num_batches_tracked": torch.tensor(7),
}
OTHERS = {"epoch": 3, "args": Namespace(nheads=8), "optimizer": {"state": {}, "param_groups": []}}


def saved(content: object, **options: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


SUFFIXES = {"zip": ".pth", "old": ".pth", "safetensors": ".safetensors", "pickle": ".pkl"}
GOOD = {
    "zip": saved({"model": WEIGHTS, **OTHERS}),
    "old": saved({"model": WEIGHTS, **OTHERS}, _use_new_zipfile_serialization=False),
    "safetensors": save(WEIGHTS),
    "pickle": pickle.dumps({name: tensor.numpy() for name, tensor in WEIGHTS.items()}),
}


def refusal(read: Callable[[str], object], path: Path) -> str:
    """The message by which a file is refused, without the path that it begins with."""
    with pytest.raises(CheckpointError) as caught:
        read(str(path))
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    assert len(message) < 600 + len(str(path)) and "weights_only" not in message
    return message.removeprefix(str(path)).lstrip(": ")


def reader(kind: str) -> Callable[[str], object]:
    return check_pickle if kind == "pickle" else read_checkpoint


def assert_reads_or_is_refused(kind: str, path: Path) -> None:
    try:
        reader(kind)(str(path))
    except CheckpointError:
        assert refusal(reader(kind), path)


@pytest.mark.parametrize("kind", GOOD)
def test_files_that_were_cut_off(kind, tmp_path):
    whole, path = GOOD[kind], tmp_path / f"weights{SUFFIXES[kind]}"
    lengths = {0, 1, 2, 3, 4, *range(5, len(whole), len(whole) // 60), *range(len(whole))[-12:]}
    for length in lengths:
        path.write_bytes(whole[:length])
        message = refusal(reader(kind), path)
        assert message.startswith("cannot be read as a ") or length == 0 and message == "is empty."


@pytest.mark.parametrize("kind", GOOD)
def test_files_with_flipped_bits(kind, tmp_path):
    """Those in the values of tensors can't be told from good ones."""
    whole, path = GOOD[kind], tmp_path / f"weights{SUFFIXES[kind]}"
    rng = random.Random(0)
    for _ in range(150):
        flipped = bytearray(whole)
        for _ in range(rng.choice([1, 1, 1, 5])):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        assert_reads_or_is_refused(kind, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("random")


STARTS = [b"", b"\x80\x02", b"\x80\x04\x95", b"PK\x03\x04", GOOD["old"][:60], GOOD["zip"][:200]]


@pytest.mark.parametrize("kind", GOOD)
@settings(deadline=None, max_examples=60)
@given(start=st.sampled_from(STARTS), data=st.binary(max_size=300))
def test_random_bytes(kind, folder, start, data):
    path = folder / f"weights{SUFFIXES[kind]}"
    path.write_bytes(start + data)
    assert_reads_or_is_refused(kind, path)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"", "is empty."),
        (b" \n" * 999, "is empty."),
        (b"<!DOCTYPE html>\n<html>", "is a web page (HTML), not a checkpoint: the download failed"),
        (b"\xef\xbb\xbf\r\n  <html>", "is a web page"),
        (b'<?xml version="1.0"?><Error>', "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a pointer of Git LFS"),
        (b'{"message": "Not Found"}', "is a JSON file, not a checkpoint."),
        (b"Not Found", "cannot be read as a "),
        (b"\x1f\x8b\x08\x00" * 9, "cannot be read as a "),
        (b"PK\x05\x06" + bytes(18), "cannot be read as a "),
    ],
)
@pytest.mark.parametrize("kind", GOOD)
def test_what_is_something_else_is_recognised(kind, start, message, tmp_path):
    path = tmp_path / f"weights{SUFFIXES[kind]}"
    path.write_bytes(start)
    assert refusal(reader(kind), path).startswith(message)


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            # With a date of its own, as these bytes are in names of tests.
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        (".pth", zipped({})),
        (".pth", zipped({"readme.txt": b"text"})),
        (".pth", zipped({"w/data.pkl": b"", "w/version": b"3\n"})),
        (".pth", zipped({"w/data.pkl": pickle.dumps({}), "w/byteorder": b"middle"})),
        (".pth", GOOD["safetensors"]),
        (".safetensors", GOOD["zip"]),
        (".safetensors", (1 << 60).to_bytes(8, "little") + b"{}"),
        (".safetensors", (2).to_bytes(8, "little") + b"[]"),
        (".safetensors", (8).to_bytes(8, "little") + b'{"a":[]}'),
        (".pkl", GOOD["zip"]),
    ],
)
def test_what_only_looks_like_a_checkpoint(suffix, data, tmp_path):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(data)
    read = check_pickle if suffix == ".pkl" else read_checkpoint
    assert refusal(read, path).startswith("cannot be read as a ")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (torch.zeros(3), "Tensor"),
        ([torch.zeros(3)], "list"),
        (None, "NoneType"),
        ({"model": None}, "NoneType"),
        ({"model": torch.zeros(3)}, "Tensor"),
        ({"model": {**WEIGHTS, "epoch": 3, "names": ["a"]}}, "'epoch': int, 'names': list"),
        ({**WEIGHTS, "args": Namespace(lr=1)}, "'args': Namespace"),
        ({"model": {1: torch.zeros(3)}}, "1: Tensor"),
        ({"state_dict": {None: 1}}, "None: int"),
        ({"model": {"w" * 9999: 1, "\x1b[31m\ud800\n": 2}}, "'www"),
        ({"model": dict.fromkeys(range(99), 0)}, "0: int, 1: int, 2: int"),
    ],
)
def test_what_is_no_state_dict(content, what, tmp_path):
    (tmp_path / "weights.pth").write_bytes(saved(content))
    message = refusal(read_checkpoint, tmp_path / "weights.pth")
    assert message.startswith(f"holds no state dict (names and their tensors), but {what}")
    assert message.isprintable()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "it holds no tensors."),
        (
            {"w": torch.zeros(1)},
            "it is no known kind of checkpoint. Its first tensors are w. These",
        ),
        (
            {f"{i}{'w' * 999}": torch.zeros(1) for i in range(9)},
            "it is no known kind of checkpoint",
        ),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_of_no_known_kind(suffix, weights, message, tmp_path):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(save(weights) if suffix == ".safetensors" else saved(weights))
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(str(path))
    assert str(caught.value).startswith(f"{path}: {message}") and len(str(caught.value)) < 1200


REFERENCE = {"transformer.encoder.layers.0.linear1.weight": torch.zeros(2, 2)}
OWN = {"detector.class_head.weight": torch.zeros(3, 2), "detector.class_head.bias": torch.zeros(3)}
NONSENSE = [torch.zeros(2), [1], {"a": [1]}, b"\xff", 1j, None]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda value: type(value).__name__)
def test_descriptions_that_make_no_sense_say_nothing(nonsense, tmp_path):
    """So that whatever is made of them later is not surprised."""
    path = tmp_path / "weights.pth"
    names = ("nheads", "pre_norm", "position_embedding", "dilation")
    args = Namespace(**dict.fromkeys(names, nonsense))
    for content in ({"args": nonsense}, {"args": args}):
        path.write_bytes(saved({"model": REFERENCE, **content}))
        assert read_checkpoint(str(path)).settings == ModelSettings.from_reference(None)
    settings_of_own = dict.fromkeys(ModelSettings().to_dict(), nonsense)
    description = {"class_names": nonsense, "settings": settings_of_own, "dataset_ids": nonsense}
    for own in (nonsense, description, {"class_names": [nonsense] * 2, "settings": nonsense}):
        path.write_bytes(saved({"model": OWN, "detr_d2": own}))
        checkpoint = read_checkpoint(str(path))
        assert (checkpoint.settings, checkpoint.class_names) == (ModelSettings(), None)


HUGGING_FACE = {"model.encoder.layers.0.self_attn.q_proj.weight": torch.zeros(2, 2)}


@pytest.mark.parametrize("value", [None, 3, 1e999, "x", [1], {"a": [1]}, [], {}], ids=repr)
@pytest.mark.parametrize(
    "key",
    [
        *("encoder_attention_heads", "activation_function", "position_embedding_type", "id2label"),
        *("dilation", "backbone", "backbone_config", "backbone_kwargs", "use_timm_backbone"),
    ],
)
def test_configs_that_make_no_sense(key, value, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "detr", key: value}))
    (tmp_path / "model.safetensors").write_bytes(save(HUGGING_FACE))
    try:
        hash(read_checkpoint(str(tmp_path)).settings)
    except CheckpointError:
        assert "its config.json has" in refusal(read_checkpoint, tmp_path)

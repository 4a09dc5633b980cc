"""Files that want to run code: refused by name, and nothing of them is run."""

import argparse
import datetime
import functools
import io
import os
import pathlib
import pickle
import re
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detr_d2.checkpoint import (
    CheckpointError,
    LoadingRules,
    ModelSettings,
    read_checkpoint,
)
from detr_d2.checkpoint.weight_files import read_file
from detr_d2.engine.checkpointer import StrictCheckpointer

# Enough for a file to be recognised.
WEIGHTS = {"layer1.0.conv1.weight": torch.arange(4.0)}


class Call:
    """Pickled, a call of any function."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.reduced


class Arguments(argparse.Namespace):
    """Not the class that is permitted."""


BUILTIN = r"(builtins\.|__builtin__\.)?"
PATHLIB = r"pathlib\.(_local\.)?"  # as Python 3.13 names it
# What makes a file when it is unpickled, and the name that is refused.
ATTACKS = {
    "system": (lambda file: Call(os.system, f"touch '{file}'"), rf"{os.name}\.system"),
    "eval": (lambda file: Call(eval, f"open({str(file)!r}, 'w')"), f"{BUILTIN}eval"),
    "partial": (
        lambda file: Call(functools.partial(os.system, f"touch '{file}'")),
        r"functools\.partial",
    ),
    "method": (
        lambda file: Call(Path.touch, Path(file)),
        rf"({BUILTIN}getattr|{PATHLIB}Path\.touch)",
    ),
}
HARMLESS = {
    "path": (pathlib.PurePosixPath("weights.pth"), rf"{PATHLIB}PurePosixPath"),
    "namespace": (Arguments(nheads=8), r"[\w.]*test_untrusted_files\.Arguments"),
    "array": (np.zeros(3), r"numpy\.\w+\.multiarray\._reconstruct"),
    "number": (np.float64(3), r"numpy\.\w+\.multiarray\.scalar"),
    "module": (nn.Linear(1, 1), r"torch\.nn\.modules\.linear\.Linear"),
    "date": (datetime.date(2020, 1, 1), r"datetime\.date"),
}
WRITERS = {
    "zip": torch.save,
    "zip_of_protocol_4": functools.partial(torch.save, pickle_protocol=4),
    "old": functools.partial(torch.save, _use_new_zipfile_serialization=False),
    **{
        f"pickle_{protocol}": lambda content, path, protocol=protocol: path.write_bytes(
            pickle.dumps(content, protocol)
        )
        for protocol in range(6)
    },
}
PLACES = {
    "model": lambda intruder: {"model": {**WEIGHTS, "bias": intruder}},
    "args": lambda intruder: {
        "model": WEIGHTS,
        "args": argparse.Namespace(lr=1e-4, nested=[{"deep": ("in", [{"it": intruder}])}]),
    },
    "whole": lambda intruder: intruder,
}


@pytest.fixture
def sentinel(tmp_path: Path):
    """A path that attacks make a file of; there is none at the end."""
    path = tmp_path / "sentinel"
    yield path
    assert not path.exists()


def refusal(read: Callable[[str], object], path: Path) -> str:
    """The message by which a file is refused; it is one line that stands alone."""
    with pytest.raises(CheckpointError) as caught:
        read(str(path))
    message = str(caught.value)
    assert message.startswith(str(path)) and message.isprintable()
    assert len(message) < 600 + len(str(path))
    assert "weights_only" not in message and "add_safe_globals" not in message
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    return message.removeprefix(str(path))


def load_strictly(path: str) -> dict:
    """As training does, which alone reads files of Detectron2's kinds."""
    model = nn.Linear(1, 1)
    model.loading_rules = LoadingRules(classes=None, settings=ModelSettings())
    return StrictCheckpointer(model, to_train=True).load(path)


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_attacks_would_work(attack, tmp_path):
    make, _ = ATTACKS[attack]
    for protocol in range(6):
        file = tmp_path / str(protocol)
        pickle.loads(pickle.dumps(make(file), protocol))
        assert file.exists()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_refused_by_name(attack, writer, place, tmp_path, sentinel):
    make, name = ATTACKS[attack]
    path = tmp_path / ("weights.pth" if place == "model" else "weights.bin")
    content = PLACES[place](make(sentinel))
    if writer.startswith("pickle") and place != "whole":
        # A tensor in a plain pickle is refused itself, and first: torch keeps it in another pickle.
        content["model"] = {**content["model"], "layer1.0.conv1.weight": 0}
    WRITERS[writer](content, path)
    if writer in ("pickle_0", "pickle_1") and place == "args":
        name += r"|copy_?reg\._reconstructor"  # what argparse.Namespace is made with
    for read in (read_checkpoint, read_file, load_strictly):
        assert re.match(rf" wants ({name}) to be unpickled\. ", refusal(read, path))


@pytest.mark.parametrize("writer", ["zip", "zip_of_protocol_4", "old", "pickle_2", "pickle_4"])
@pytest.mark.parametrize("kind", HARMLESS)
def test_what_may_be_harmless_is_refused_as_well(kind, writer, tmp_path):
    intruder, name = HARMLESS[kind]
    path = tmp_path / "weights.pth"
    WRITERS[writer]({"model": {}, "args": [intruder]}, path)
    if writer == "pickle_2" and kind == "module":
        name += r"|torch\.storage\._load_from_bytes|torch\._utils\._rebuild_\w+"
    message = refusal(read_checkpoint, path)
    assert re.match(rf" wants ({name}) to be unpickled\. ", message)
    assert message.endswith(
        "If you trust the file, load it yourself and save its state dict alone."
    )


def test_tensors_in_a_plain_pickle_are_refused(tmp_path):
    (tmp_path / "weights.pth").write_bytes(pickle.dumps({"model": WEIGHTS}))
    message = refusal(read_checkpoint, tmp_path / "weights.pth")
    assert message.startswith(" wants torch.storage._load_from_bytes to be unpickled.")


def test_programs_and_the_oldest_files_are_refused(tmp_path):
    """Of TorchScript, and archives of tar."""
    with zipfile.ZipFile(tmp_path / "program.pth", "w") as archive:
        archive.writestr("program/data.pkl", b"\x80\x02c__torch__.Net\nNet\n)\x81.")
        archive.writestr("program/constants.pkl", pickle.dumps(()))
        archive.writestr("program/version", b"3\n")
        archive.writestr("program/code/__torch__.py", b"")
    assert "__torch__.Net.Net" in refusal(read_checkpoint, tmp_path / "program.pth")

    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            member = tarfile.TarInfo(name)
            member.size = len(pickle.dumps(None))
            archive.addfile(member, io.BytesIO(pickle.dumps(None)))
    assert "cannot be read" in refusal(read_checkpoint, tmp_path / "old.pth")


@pytest.mark.parametrize("place", PLACES)
def test_no_environment_variable_changes_that(place, tmp_path, sentinel, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save(PLACES[place](ATTACKS["system"][0](sentinel)), tmp_path / "weights.pth")
    assert ".system to be" in refusal(read_checkpoint, tmp_path / "weights.pth")


@pytest.mark.parametrize(
    "pickled",
    [b"cintruder\nanything\n.", b"\x80\x04\x8c\x08intruder\x8c\x08anything\x93."],
    ids=["old", "new"],
)
@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_modules_that_files_name_are_not_imported(suffix, pickled, tmp_path, sentinel, monkeypatch):
    (tmp_path / "intruder.py").write_text(f"open({str(sentinel)!r}, 'w')\nanything = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(pickled)
    assert refusal(load_strictly, path).startswith(" wants intruder.anything to be unpickled.")
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("zip/data.pkl", pickled)
        archive.writestr("zip/version", b"3\n")
    assert "intruder.anything" in refusal(load_strictly, tmp_path / "zip.pth")
    assert "intruder" not in sys.modules


@pytest.mark.parametrize(
    ("module", "name"), [("o" * 5000, "system"), ("\x1b[31mos", "system"), ("os", "sys\u202etem")]
)
@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_names_are_shown_short_and_without_control_characters(suffix, module, name, tmp_path):
    texts = [b"X" + len(x).to_bytes(4, "little") + x for x in (module.encode(), name.encode())]
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"\x80\x04" + b"".join(texts) + b"\x93.")
    assert "to be unpickled" in refusal(load_strictly, path)


@pytest.mark.parametrize("writer", ["zip", "old"])
def test_the_references_arguments_are_accepted(writer, tmp_path):
    """Its training saves a Namespace beside weights, optimizer and schedule."""
    args = argparse.Namespace(lr=1e-4, dataset_file="coco_panoptic", masks=True, device=None)
    content = {
        "model": WEIGHTS,
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{}]},
        "lr_scheduler": {"step_size": 200, "_last_lr": [1e-4, 1e-5]},
        "epoch": 3,
        "args": args,
        "nested": [argparse.Namespace(args=args)],
    }
    WRITERS[writer](content, tmp_path / "weights.pth")
    read = read_file(tmp_path / "weights.pth")
    assert read.keys() == content.keys()
    assert read["args"] == args and type(read["args"]) is argparse.Namespace
    assert read["nested"] == content["nested"] and read["lr_scheduler"] == content["lr_scheduler"]


# --- What only Detectron2 reads ---


@pytest.mark.parametrize(
    "name",
    [
        "R-50.pkl",
        "R-50.pkl?matching_heuristics=True",
        "R-50.pyth",
        "R.pth?matching_heuristics=True",
    ],
)
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_on_detectron2_are_refused(attack, protocol, name, tmp_path, sentinel):
    make, refused = ATTACKS[attack]
    path = tmp_path / name.partition("?")[0]
    content = {"model": {"w": np.zeros(3)}, "deep": [{"in": (make(sentinel),)}]}
    if path.suffix != ".pkl":
        content["model"] = {}
    path.write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(CheckpointError) as caught:
        load_strictly(str(tmp_path / name))
    assert re.match(rf"{path} wants ({refused}) to be unpickled\. ", str(caught.value))

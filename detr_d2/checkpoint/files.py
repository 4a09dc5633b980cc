"""Reads checkpoint files without running anything that they hold."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import torch
from safetensors.torch import load_file

from detr_d2.checkpoint.errors import CheckpointError, CheckpointNotFoundError

# What a pickle of NumPy arrays and plain values needs, in all versions of both.
ARRAY_GLOBALS = {
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
}
# Of Hugging Face's folders, in the order of preference.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
HUGGING_FACE_CONFIG = "config.json"

# The version of the format, and the content, among them.
_PICKLES_IN_OLD_FILES = 5

# The reference's training checkpoints hold their command line. It is nothing but attributes, and
# Detectron2's own loaders may read it as well.
torch.serialization.add_safe_globals([argparse.Namespace])


def read_file(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint: a file of PyTorch or of safetensors, or a folder of Hugging Face.

    Args:
        path: local.

    Returns:
        What the file holds, tensors on the CPU. A folder gives ``model``, its tensors, and
        ``config``, what its ``config.json`` holds; a bare state dict is under ``model`` as well.

    Raises:
        CheckpointNotFoundError: there is nothing at the path.
        CheckpointError: it is something else, damaged, or wants other things to be unpickled than
            tensors, plain containers and ``argparse.Namespace``; says which.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise CheckpointNotFoundError(f"There is no checkpoint {path}.")
    problem = _not_a_checkpoint(path)
    if problem:
        raise CheckpointError(f"{path} {problem}")
    if path.suffix == ".safetensors":
        content = _with_model(_read_safetensors(path), path)
    else:
        content = _with_model(_read_torch(path), path)
    if path.name in WEIGHT_FILES:
        config = _config_beside(path)
        return content if config is None else {"model": content["model"], "config": config}
    return content


def _not_a_checkpoint(path: Path) -> str:
    """What a file evidently is instead; empty where nothing is evident."""
    with open(path, "rb") as file:
        start = file.read(256).lstrip()
    if not start:
        return "is empty."
    if start.startswith(b"<"):
        return (
            "is a web page (HTML), not a checkpoint: the download failed, or the address is that "
            "of a page about the file. Delete it and download the file itself."
        )
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the checkpoint itself: run `git lfs pull`."
    if start.startswith(b"{"):
        return "is a JSON file, not a checkpoint."
    return ""


def _with_model(content: Any, path: Path) -> dict[str, Any]:
    """Makes sure that there is a state dict under ``model``."""
    if isinstance(content, dict) and "model" not in content:
        for name in ("model_state", "state_dict", "model_state_dict"):
            if isinstance(content.get(name), dict):
                content = {**content, "model": content[name]}
                break
        else:
            content = {"model": content}
    weights = content.get("model") if isinstance(content, dict) else content
    odd = [type(weights).__name__]
    if isinstance(weights, dict):
        odd = [
            f"{name!r}: {type(value).__name__}"
            for name, value in weights.items()
            if not (isinstance(name, str) and isinstance(value, torch.Tensor))
        ]
    if odd:
        raise CheckpointError(
            f"{path} holds no state dict (names and their tensors), but {', '.join(odd[:3])}."
        )
    return content


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickles of a newer protocol
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that aren't its own
        refused = _refused_global(path, error)
        if refused:
            raise CheckpointError(
                f"{path} wants {refused} to be unpickled. That could run any code, and is refused: "
                "a checkpoint may hold tensors, plain containers and argparse.Namespace. If you "
                "trust the file, load it yourself and save its state dict alone."
            ) from None
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint of PyTorch: it is damaged, cut off "
            f"({path.stat().st_size:,} bytes), or something else ({_reason(error)})."
        ) from None


def _refused_global(path: Path, error: Exception) -> str:
    """The name of the function or class on whose account torch refused a file, if that is why."""
    match = re.search(r"GLOBAL ([\w.]+)", str(error))
    if match:
        return match[1]
    try:
        names = list(_globals_of(path))
    except Exception:  # the file is damaged, too
        return ""
    permitted = r"(torch|collections|_codecs)\..*|argparse\.Namespace"
    return next((name for name in names if not re.fullmatch(permitted, name)), "")


def _globals_of(path: Path) -> Iterator[str]:
    """What the pickles in a file of PyTorch name: a zip has one, older files are a row of them."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".pkl"):
                    with archive.open(name) as file:
                        yield from _GlobalLister.names_in(file)
        return
    with open(path, "rb") as file:
        for _ in range(_PICKLES_IN_OLD_FILES):
            yield from _GlobalLister.names_in(file)


class _Nothing:
    """Stands for whatever a pickle names: takes all that is done to it, and does nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> _Nothing:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, value: object) -> None: ...

    def extend(self, values: object) -> None: ...


class _GlobalLister(pickle.Unpickler):
    """Notes the functions and classes that a pickle names, and calls none of them."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.names: list[str] = []

    @classmethod
    def names_in(cls, file: BinaryIO) -> list[str]:
        """The names in the next pickle of a file, up to where it can't be followed."""
        lister = cls(file)
        try:
            lister.load()
        except Exception:  # whatever comes of stand-ins or damaged bytes
            pass
        return lister.names

    def find_class(self, module: str, name: str) -> type:
        self.names.append(f"{module}.{name}")
        return _Nothing

    def persistent_load(self, pid: object) -> object:
        return _Nothing()


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays and plain values alone."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAY_GLOBALS:
            raise CheckpointError(
                f"wants {module}.{name} to be unpickled. That could run any code, and is refused: "
                "a .pkl may hold arrays and plain values."
            )
        return super().find_class(module, name)


def check_pickle(path: str | Path) -> None:
    """Makes sure that a ``.pkl`` holds arrays and plain values alone, so that it may be unpickled.

    Raises:
        CheckpointError: it doesn't, or is damaged.
    """
    problem = _not_a_checkpoint(Path(path))
    if problem:
        raise CheckpointError(f"{path} {problem}")
    try:
        with open(path, "rb") as file:
            _ArrayUnpickler(file, encoding="latin1").load()
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from None
    except Exception as error:  # whatever damaged bytes make the unpickler raise
        raise CheckpointError(
            f"{path} cannot be read as a pickle: it is damaged, cut off, or something else "
            f"({_reason(error)})."
        ) from None


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a file of safetensors: it is damaged, cut off "
            f"({path.stat().st_size:,} bytes), or something else ({_reason(error)})."
        ) from None


def _read_folder(folder: Path) -> dict[str, Any]:
    """Reads a model that Hugging Face's ``save_pretrained`` wrote."""
    config_file = folder / HUGGING_FACE_CONFIG
    if not config_file.exists():
        raise CheckpointError(
            f"{folder} is a folder without {HUGGING_FACE_CONFIG}: neither a checkpoint nor a model "
            "of Hugging Face."
        )
    config = _read_config(config_file)
    for name in WEIGHT_FILES:
        if (folder / f"{name}.index.json").exists():
            raise CheckpointError(
                f"{folder} has its weights in several files. Save them in one, with "
                "save_pretrained(folder, max_shard_size='10GB')."
            )
        if (folder / name).exists():
            return {"model": read_file(folder / name)["model"], "config": config}
    raise CheckpointError(f"{folder} has no weights: neither {' nor '.join(WEIGHT_FILES)}.")


def _config_beside(path: Path) -> dict[str, Any] | None:
    """The ``config.json`` beside a file, if it is that of a DETR."""
    try:
        return _read_config(path.parent / HUGGING_FACE_CONFIG)
    except (OSError, CheckpointError):
        return None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON ({error}).") from None
    if not isinstance(config, dict) or config.get("model_type") != "detr":
        kind = config.get("model_type") if isinstance(config, dict) else type(config).__name__
        raise CheckpointError(f"{path} describes a model of type {kind!r}, not 'detr'.")
    return config


def _reason(error: Exception) -> str:
    """The first sentence of an error, without the advice that may follow it."""
    sentence = re.split(r"\. |\n", str(error).strip())[0]
    if not sentence or sentence.startswith("Weights only load failed"):
        return "no tensors and plain values"
    return sentence[:200].rstrip(".")

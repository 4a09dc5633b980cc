"""Reads checkpoint files without running any code in them."""

from __future__ import annotations

import argparse
import codecs
import json
import re
import warnings
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file

from detr_d2.checkpoint.checkpoint_errors import CheckpointError, CheckpointNotFoundError, brief
from detr_d2.checkpoint.pickles import PERMITTED_GLOBALS, Array, globals_of, read_arrays

# Names in Hugging Face's folders, in the order of preference.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
HUGGING_FACE_CONFIG = "config.json"

# The reference's training checkpoints hold their command line in this class, which is safe: it has
# attributes only. This lets Detectron2's own loaders read it as well.
torch.serialization.add_safe_globals([argparse.Namespace])


def read_file(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint: a file of PyTorch or of safetensors, or a folder of Hugging Face.

    Args:
        path: local.

    Returns:
        The content of the file, with tensors on the CPU. A folder gives ``model``, its tensors, and
        ``config``, its ``config.json``. A bare state dict is returned under ``model`` as well.

    Raises:
        CheckpointNotFoundError: there is nothing at the path.
        CheckpointError: the file is no checkpoint, is damaged, or would unpickle other things than
            tensors, plain containers and ``argparse.Namespace``, which the message names.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise CheckpointNotFoundError(f"There is no checkpoint {path}.")
    content = _read_weights(path)
    config = _config_beside(path) if path.name in WEIGHT_FILES else None
    return content if config is None else {"model": content["model"], "config": config}


def _read_weights(path: Path) -> dict[str, Any]:
    """Reads a single file."""
    _check_start(path)
    if path.suffix.partition("?")[0] == ".safetensors":  # a download keeps its URL's query
        return _with_model(_read_safetensors(path), path)
    return _with_model(_read_torch(path), path)


def _check_start(path: Path) -> None:
    """Refuses files whose first bytes show that they are no checkpoints.

    Raises:
        CheckpointError: the file evidently is something else, or can't be opened.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(256).removeprefix(codecs.BOM_UTF8).lstrip()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    if not start:
        raise CheckpointError(f"{path} is empty.")
    # A letter has to follow: safetensors begin with a number, of which any byte may be "<".
    if re.match(rb"<[!?a-zA-Z]", start):
        raise CheckpointError(
            f"{path} is a web page (HTML), not a checkpoint: the download failed, or the address "
            "is that of a page about the file. Delete it and download the file itself."
        )
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a pointer of Git LFS, not the checkpoint itself: run `git lfs pull`."
        )
    if re.match(rb"\{\s*[\"}]", start):
        raise CheckpointError(f"{path} is a JSON file, not a checkpoint.")


def _with_model(content: Any, path: Path) -> dict[str, Any]:
    """Puts the state dict under ``model``, and checks it."""
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
        odd = _odd_entries(weights, torch.Tensor)
    if odd:
        raise CheckpointError(
            f"{path} holds no state dict (names and their tensors), but {', '.join(odd[:3])}."
        )
    return content


def _odd_entries(weights: dict, kind: type) -> list[str]:
    """Describes the entries of a dict that are not a name and a value of the type ``kind``."""
    return [
        f"{brief(repr(name))}: {type(value).__name__}"
        for name, value in weights.items()
        if not (isinstance(name, str) and isinstance(value, kind))
    ]


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickles of a newer protocol
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of many types for other files
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
    """Names the function or class for which torch refused a file; empty if there is none."""
    names = globals_of(path)
    match = re.search(r"GLOBAL ([\w.]+)", str(error))
    if match and any(name.endswith(match[1]) for name in names):  # not only its beginning
        return brief(match[1])
    refused = [name for name in names if not PERMITTED_GLOBALS.fullmatch(name)]
    # A name of another package tells the user more than a name of torch.
    return brief(min(refused, key=lambda name: name.startswith("torch."), default=""))


def check_pickle(path: str | Path) -> list[str]:
    """Checks that a ``.pkl`` holds only arrays and plain values, so that it is safe to unpickle.

    Returns:
        The names of its arrays.

    Raises:
        CheckpointError: the file holds something else, or is damaged.
    """
    _check_start(Path(path))
    try:
        with open(path, "rb") as file:
            content = read_arrays(file)
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from None
    except Exception as error:  # damaged bytes may raise any error
        raise CheckpointError(
            f"{path} cannot be read as a pickle: it is damaged, cut off, or something else "
            f"({_reason(error)})."
        ) from None
    if isinstance(content, dict):  # a file of Detectron2 or Caffe2
        is_own = {"model", "__author__"} <= content.keys()
        content = content["model"] if is_own else content.get("blobs", content)
    odd = [type(content).__name__]
    if isinstance(content, dict):
        odd = _odd_entries(content, Array)
    if odd:
        raise CheckpointError(
            f"{path} holds no weights (names and their arrays), but {', '.join(odd[:3])}."
        )
    return list(content)


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
            return {"model": _read_weights(folder / name)["model"], "config": config}
    raise CheckpointError(f"{folder} has no weights: neither {' nor '.join(WEIGHT_FILES)}.")


def _config_beside(path: Path) -> dict[str, Any] | None:
    """Reads the ``config.json`` beside a file; None if it doesn't describe a DETR."""
    try:
        return _read_config(path.parent / HUGGING_FACE_CONFIG)
    except CheckpointError:
        return None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}).") from None
    if not isinstance(config, dict) or config.get("model_type") != "detr":
        kind = config.get("model_type") if isinstance(config, dict) else type(config).__name__
        raise CheckpointError(f"{path} describes a model of type {brief(repr(kind))}, not 'detr'.")
    return config


def _reason(error: Exception) -> str:
    """The first sentence of an error, without the advice that may follow it."""
    text = re.sub(r"^\[enforce fail at [^]]*\][ .]*", "", str(error).strip())
    sentence = re.split(r"\. |\n", text)[0]
    if not sentence or re.search("weights.only", sentence, re.IGNORECASE):
        return "no tensors and plain values"
    return brief(sentence, 200).rstrip(".")

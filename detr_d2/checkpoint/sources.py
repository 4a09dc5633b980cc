"""Sources of checkpoints: paths, URLs, and names of torchvision's ImageNet weights."""

from __future__ import annotations

import os
from http.client import HTTPException
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlparse

import torchvision
from detectron2.utils.file_io import PathHandler, PathManager
from iopath.common.file_io import get_cache_dir

from detr_d2.checkpoint.checkpoint_errors import CheckpointError, CheckpointNotFoundError, brief
from detr_d2.checkpoint.weight_files import HUGGING_FACE_CONFIG, WEIGHT_FILES

# Suffixes of files; other URLs name folders.
SUFFIXES = {".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".pkl", ".pyth"}

# Ends of paths of backbones that only Detectron2 can read. It matches their names by heuristics.
DETECTRON2_FORMATS = (".pkl", ".pyth", "?matching_heuristics=True")

# Prefix of timm's pretrained weights: timm://NAME, or timm://FILE with a local file of such.
TIMM = "timm://"


class TorchvisionHandler(PathHandler):
    """``torchvision://resnet50``: the ImageNet weights of that model of torchvision.

    The handler takes the first version of the weights, as the reference does.
    """

    PREFIX = "torchvision://"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        name = path.removeprefix(self.PREFIX).lower()  # torchvision's spelling
        classifiers = torchvision.models.list_models(torchvision.models)
        if name not in classifiers:
            known = ", ".join(n for n in classifiers if n.startswith("resnet"))
            raise CheckpointError(
                f"{path}: torchvision has no ImageNet model {name!r}. Its ResNets are {known}."
            )
        first = next(iter(torchvision.models.get_model_weights(name)))
        return PathManager.get_local_path(first.url, force=force)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO:
        return open(self._get_local_path(path), mode, buffering)

    def _exists(self, path: str, **kwargs: Any) -> bool:
        return True

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return True


def names_a_backbone(path: str) -> bool:
    """Whether the path alone shows that the file is a backbone to train from, not a detector."""
    return path.endswith(DETECTRON2_FORMATS) or path.startswith((TorchvisionHandler.PREFIX, TIMM))


PathManager.register_handler(TorchvisionHandler())


def fetch(path: str) -> str:
    """Returns a local path of a checkpoint, and downloads it if necessary.

    Args:
        path: local, of a file or of a Hugging Face folder; or a URL of either, such as
            ``https://huggingface.co/facebook/detr-resnet-50-panoptic``; or ``torchvision://NAME``.

    Returns:
        A local path.

    Raises:
        CheckpointNotFoundError: there is nothing at a local path.
        CheckpointError: the download failed.
    """
    if "://" not in path:
        if not PathManager.exists(path):
            raise CheckpointNotFoundError(f"There is no checkpoint {path}.")
        return path
    try:
        if not path.startswith(("http://", "https://")):
            return PathManager.get_local_path(path)
        if PurePosixPath(urlparse(path).path).suffix in SUFFIXES:
            return _download(path)
        return _fetch_folder(path.rstrip("/"))
    except CheckpointError:
        raise
    except (OSError, HTTPException, ValueError) as error:  # the address is missing or invalid
        raise download_error(path, error) from error


def download_error(path: str, error: Exception) -> CheckpointError:
    """The error, in one line, of weights that couldn't be fetched from another machine."""
    reason = brief(" ".join(str(error).split()), 200).rstrip(".")
    return CheckpointError(
        f"{path} could not be downloaded: {reason}. Where there is no network, give the path of a "
        "file that was downloaded elsewhere."
    )


def _download(url: str) -> str:
    """Downloads a file once. Unlike iopath, it keeps files of different hosts apart."""
    try:
        return PathManager.get_local_path(
            url, cache_dir=os.path.join(get_cache_dir(), urlparse(url).netloc)
        )
    except HTTPError as error:
        error.close()  # the error holds an open connection
        raise


def _fetch_folder(url: str) -> str:
    """Downloads the files of a Hugging Face folder."""
    if urlparse(url).hostname == "huggingface.co" and "/resolve/" not in url:
        url += "/resolve/main"
    folder = os.path.dirname(_download(f"{url}/{HUGGING_FACE_CONFIG}"))
    problems = []
    for name in WEIGHT_FILES:
        try:
            _download(f"{url}/{name}")
            return folder
        except OSError as error:
            problems.append(f"{name} ({error})")
    raise OSError(f"neither {' nor '.join(problems)}")

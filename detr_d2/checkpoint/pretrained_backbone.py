"""Weights of backbones that name their tensors as another library does, such as timm's."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import torch

from detr_d2.checkpoint.checkpoint_errors import CheckpointError
from detr_d2.checkpoint.formats import Format, NamedWeights, StateDict, is_counter, shorten
from detr_d2.checkpoint.sources import SUFFIXES, TIMM, download_error, fetch
from detr_d2.checkpoint.weight_files import read_file
from detr_d2.checkpoint.wrappers import unwrap
from detr_d2.extras import require_extra

# A tensor that only EfficientNets in the names of the package efficientnet-pytorch have.
EFFICIENTNET_PYTORCH = "_conv_stem.weight"


@dataclass(frozen=True)
class PretrainedNames:
    """How files of pretrained weights name the tensors of a model's backbone.

    Attributes:
        title: of such a file, for people.
        own: names in the file → own names. Tensors of the backbone that are not here, such as those
            of a pyramid behind a pretrained model, are in no such file.
        in_order: all tensors of the whole pretrained model, also of the parts that are left out.
    """

    title: str
    own: Mapping[str, str]
    in_order: Sequence[str]

    def are_in(self, state_dict: StateDict) -> bool:
        """Whether a state dict, perhaps of a wrapped model, is of this kind."""
        return self._are_names(unwrap(state_dict, self._are_names).tensors)

    def _are_names(self, names: Iterable[str]) -> bool:
        names = set(names)
        return EFFICIENTNET_PYTORCH in names or not names.isdisjoint(self.own)

    def rename(self, state_dict: StateDict) -> NamedWeights:
        """Gives tensors our names.

        Raises:
            CheckpointError: the file has tensors that the pretrained model doesn't have.
        """
        unwrapped = unwrap(state_dict, self._are_names)
        named = NamedWeights(Format(self.title, "", {}), taken_off=unwrapped.taken_off)
        their_names = self._efficientnet(unwrapped.tensors)
        left_over = []
        for key, tensor in unwrapped.tensors.items():
            source, name = unwrapped.source[key], their_names.get(key, key)
            if name in self.own:
                named.add(self.own[name], source, tensor)
            elif name in self.in_order or is_counter(name):
                named.ignored.append(source)
            else:
                left_over.append(source)
        if left_over:
            raise CheckpointError(
                f"it has tensors that {self.title} don't have: {shorten(left_over)}."
            )
        return named

    def _efficientnet(self, tensors: Mapping[str, Any]) -> dict[str, str]:
        """Names of efficientnet-pytorch → names of timm, which has the tensors in this order."""
        if EFFICIENTNET_PYTORCH not in tensors:
            return {}
        theirs = [name for name in tensors if not is_counter(name)]
        ours = [name for name in self.in_order if not is_counter(name)]
        if len(theirs) != len(ours):
            raise CheckpointError(
                f"it is an EfficientNet of another size: {len(theirs)} tensors, {self.title} are "
                f"{len(ours)}."
            )
        return dict(zip(theirs, ours, strict=True))


def read_timm(path: str) -> dict[str, Any]:
    """Reads ``timm://NAME``, weights that timm downloads once, or ``timm://FILE``, a local file.

    Returns:
        A checkpoint's content: the state dict under ``model``, in timm's names.

    Raises:
        CheckpointError: timm has no such weights, or they can't be downloaded or read.
        ImportError: timm is missing.
    """
    name = path.removeprefix(TIMM)
    if PurePosixPath(name).suffix in SUFFIXES:
        return read_file(fetch(name))
    require_extra("timm", f"{path} needs", ["timm"])
    import timm

    known = timm.list_pretrained()
    architectures = {tagged.partition(".")[0] for tagged in known}
    if name not in known and name not in architectures:
        similar = difflib.get_close_matches(name, [*known, *sorted(architectures)], 5)
        raise CheckpointError(
            f"{path}: timm {timm.__version__} has no pretrained weights of this name."
            + (f" Similar names: {', '.join(similar)}." if similar else "")
        )
    try:
        with torch.random.fork_rng(devices=[]):  # timm would draw initial values from it
            return {"model": timm.create_model(name, pretrained=True).state_dict()}
    except Exception as error:  # of several libraries that download
        raise download_error(path, error) from error

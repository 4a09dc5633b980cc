"""Recognises the format of a state dict by its names, and renames its tensors to ours.

Axes: D the transformer's width.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch

from detr_d2.checkpoint import parameter_names as names
from detr_d2.checkpoint.checkpoint_errors import CheckpointError, brief
from detr_d2.checkpoint.wrappers import unwrap

StateDict = Mapping[str, torch.Tensor]

# Names of the tensors of a module.
LEAVES = {"weight", "bias", "running_mean", "running_var", "in_proj_weight", "in_proj_bias"}


@dataclass(frozen=True, eq=False)
class Format:
    """A kind of state dict.

    Attributes:
        title: the name of the format in logs.
        marker: pattern of names that only this kind has.
        modules: names of its modules → our names, see ``names``.
        prefix: pattern of a prefix that all names may have.
        ignored: pattern of names that are not used here, besides those of batch norm's counters.
    """

    title: str
    marker: str
    modules: Mapping[str, str]
    prefix: str = ""
    ignored: str = ""

    @cached_property
    def patterns(self) -> list[tuple[re.Pattern, str]]:
        return [
            (re.compile(re.escape(theirs).replace(r"\#", r"(\d+)")), own)
            for theirs, own in self.modules.items()
        ]

    def own_module(self, module: str) -> str | None:
        """Returns our name of a module; None if there is none."""
        for pattern, own in self.patterns:
            match = pattern.fullmatch(module)
            if match:
                return own.replace("#", "{}").format(*match.groups())
        return None


OWN = Format("one of this project", r"detector\..*|mask_head\.(attention_map|input_conv)\..*", {})
REFERENCE = Format(
    "the reference DETR",
    r"(detr\.)*transformer\.(encoder|decoder)\.layers\.\d+\.linear1\.weight",
    names.REFERENCE,
    prefix=r"(detr\.)*",
    # The class weights of the loss, which the reference's Detectron2 wrapper saves as well.
    ignored=r"criterion\.empty_weight",
)
HUGGING_FACE = Format(
    "DETR of Hugging Face's transformers",
    r"(detr\.)?model\.(encoder|decoder)\.layers\.\d+\.self_attn\.q_proj\.weight",
    names.HUGGING_FACE,
    prefix=r"(detr\.)?",
)
TORCHVISION = Format(
    "a ResNet of torchvision",
    r"layer1\.0\.conv1\.weight",
    {theirs: names.BACKBONE + own for theirs, own in names.TORCHVISION_RESNET.items()},
    ignored=r"fc\.(weight|bias)",
)
FORMATS = (OWN, REFERENCE, HUGGING_FACE, TORCHVISION)


@dataclass
class NamedWeights:
    """Tensors under this project's names.

    Attributes:
        format: the format of the file.
        weights: own name → tensor.
        source: own name → name in the file.
        ignored: names in the file that are not used here.
        taken_off: prefixes of wrappers that were removed from the names.
    """

    format: Format
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    taken_off: tuple[str, ...] = ()

    def add(self, name: str, source: str, tensor: torch.Tensor) -> None:
        if name in self.weights:
            raise CheckpointError(f"{self.source[name]} and {source} both are {name}.")
        self.weights[name], self.source[name] = tensor, source


def is_counter(name: str) -> bool:
    """Whether a tensor counts batches. Batch norms that are trained have one, frozen ones don't."""
    return name.endswith(".num_batches_tracked")


def recognise(keys: Iterable[str]) -> Format | None:
    """Returns the first format whose marker matches one of the names; None if none does."""
    keys = list(keys)
    for candidate in FORMATS:
        marker = re.compile(candidate.marker)
        if any(marker.fullmatch(key) for key in keys):
            return candidate
    return None


def to_own_names(state_dict: StateDict) -> NamedWeights:
    """Renames the tensors of a state dict of any known format.

    Joint matrices of attention are split. The tensors are views of the given ones. Prefixes of
    wrappers are removed, see ``unwrap``.

    Raises:
        CheckpointError: the format or a name is unknown, only some names have the prefix of a
            wrapper, or a shape is invalid.
    """
    unwrapped = unwrap(state_dict, lambda names: recognise(names) is not None)
    state_dict = unwrapped.tensors
    recognised = recognise(state_dict)
    if not state_dict:
        raise CheckpointError("it holds no tensors.")
    if recognised is None:
        known = "; ".join(candidate.title for candidate in FORMATS)
        raise CheckpointError(
            f"it is no known kind of checkpoint. Its first tensors are {shorten(state_dict)}. "
            f"These kinds are known: {known}."
        )
    odd = [name for name, tensor in state_dict.items() if not _is_plain(tensor)]
    if odd:
        raise CheckpointError(
            f"its weights can't be used as they are stored (sparse, quantized, complex, or without "
            f"values): {shorten(odd)}."
        )
    named = NamedWeights(recognised, taken_off=unwrapped.taken_off)
    left_over = []
    for key, tensor in state_dict.items():
        if recognised is OWN:
            named.add(key, key, tensor)
        elif is_counter(key) or re.fullmatch(recognised.ignored, key):
            named.ignored.append(key)
        elif not _add_renamed(named, key, tensor):
            left_over.append(key)
    if left_over:
        raise CheckpointError(
            f"it was recognised as {recognised.title}, but has tensors that such a model doesn't "
            f"have: {shorten(left_over)}."
        )
    _check_rows(named)
    if unwrapped.taken_off:
        named.source = {own: unwrapped.source[key] for own, key in named.source.items()}
        named.ignored = [unwrapped.source[key] for key in named.ignored]
    return named


def _is_plain(tensor: object) -> bool:
    """Whether something is a dense tensor of real numbers, and has values."""
    return (
        isinstance(tensor, torch.Tensor)
        and tensor.layout is torch.strided
        and not (tensor.is_quantized or tensor.is_complex() or tensor.is_meta or tensor.is_nested)
    )


def _check_rows(named: NamedWeights) -> None:
    """Checks that the tensors of classes and queries have rows.

    Raises:
        CheckpointError: one of them has none.
    """
    for name in (f"{names.CLASS_HEAD}weight", f"{names.CLASS_HEAD}bias", names.QUERIES):
        tensor = named.weights.get(name)
        if tensor is not None and (tensor.dim() == 0 or len(tensor) == 0):
            shape = tuple(tensor.shape)
            advice = (
                " To start training with a fresh class head, leave its weight and bias out of the "
                "file and set MODEL.DETR.RESIZE_ON_LOAD True."
            )
            raise CheckpointError(
                f"{named.source[name]} has no rows: its shape is {shape}."
                + (advice if name.startswith(names.CLASS_HEAD) else "")
            )


def _add_renamed(named: NamedWeights, key: str, tensor: torch.Tensor) -> bool:
    """Adds a tensor under our name or names; returns False if it has none."""
    module, _, leaf = re.sub(f"^{named.format.prefix}", "", key).rpartition(".")
    own = named.format.own_module(module)
    if own is None or leaf not in LEAVES:
        return False
    if not leaf.startswith("in_proj_"):
        named.add(f"{own}.{leaf}", key, tensor)
        return True
    # PyTorch's attention has one 3D×D matrix (and 3D bias) for queries, keys and values.
    if tensor.dim() == 0 or len(tensor) % 3:
        raise CheckpointError(
            f"{key} can't be split into queries, keys and values: its shape is "
            f"{tuple(tensor.shape)}."
        )
    for part, piece in zip("qkv", tensor.chunk(3), strict=True):
        named.add(f"{own}.{part}_proj.{leaf.removeprefix('in_proj_')}", key, piece)
    return True


def shorten(keys: Iterable[str], most: int = 6) -> str:
    """Lists the first few of many names, for messages."""
    keys = list(keys)
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(map(brief, keys[:most])) + more

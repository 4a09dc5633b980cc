"""Prefixes that wrappers around a model leave in the names of its tensors, taken off."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from detr_d2.checkpoint.checkpoint_errors import CheckpointError, brief

# Distributed training, torch.compile, and what shards or recomputes: wherever they stand in a name,
# around the model or around a part of it, no model has a part of this name.
WRAPPERS = (
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
)
# What trainers call the model that they hold. Models of Hugging Face have it in names of their own.
HOLDER = "model."


@dataclass(frozen=True)
class Unwrapped:
    """Tensors by their names without the prefixes of wrappers.

    Attributes:
        tensors: plain name → tensor.
        source: plain name → name in the file.
        taken_off: the prefixes, each once.
    """

    tensors: dict[str, Any]
    source: dict[str, str]
    taken_off: tuple[str, ...]


def plain_name(name: str) -> str:
    """A name without the wrappers that no model has in names of its own."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def unwrap(state_dict: Mapping[str, Any], is_known: Callable[[Iterable[str]], bool]) -> Unwrapped:
    """Takes the prefixes of wrappers off, however many and in whatever order.

    Args:
        state_dict: as a file has it.
        is_known: whether names are those of a known kind of model.

    Raises:
        CheckpointError: some names have a prefix and others of the same part have not, or two names
            are one without it.
    """
    _check_consistency(state_dict)
    plain = {name: plain_name(name) for name in state_dict}
    taken_off = dict.fromkeys(
        f"{part}." for name in state_dict for part in name.split(".") if part in WRAPPERS
    )
    while held := [name for name in plain if plain[name].startswith(HOLDER)]:
        without = {name: plain[name].removeprefix(HOLDER) for name in held}
        others = [name for name in plain if name not in without]
        if others and is_known(without.values()):
            _refuse(HOLDER, held[0], others[0])
        if others or is_known(plain.values()):
            break
        plain, taken_off[HOLDER] = without, None
    source: dict[str, str] = {}
    for name, short in plain.items():
        other = source.setdefault(short, name)
        if other != name:
            raise CheckpointError(
                f"{brief(other)} and {brief(name)} are both {brief(short)} without the prefixes of "
                "wrappers."
            )
    tensors = {short: state_dict[name] for short, name in source.items()}
    return Unwrapped(tensors, source, tuple(taken_off))


def _check_consistency(names: Iterable[str]) -> None:
    """Makes sure that what is wrapped is wrapped for all of its tensors.

    Raises:
        CheckpointError: it isn't.
    """
    # For each part of the model, the wrappers right below it → the first name that has these.
    found: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for name in names:
        path: tuple[str, ...] = ()
        wrappers = ""
        for part in name.split("."):
            if part in WRAPPERS:
                wrappers += f"{part}."
                continue
            found[path].setdefault(wrappers, name)
            path, wrappers = (*path, part), ""
    for kinds in found.values():
        if len(kinds) > 1:
            prefix = max(kinds, key=len)
            _refuse(prefix, kinds[prefix], next(n for k, n in kinds.items() if k != prefix))


def _refuse(prefix: str, having: str, lacking: str) -> None:
    raise CheckpointError(
        f"only some of its names have the prefix {brief(prefix)!r} of a wrapper: "
        f"{brief(having)} has it, {brief(lacking)} hasn't. Save the state dict of one model."
    )

"""Removes the prefixes that wrappers around a model leave in the names of its tensors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from detr_d2.checkpoint.checkpoint_errors import CheckpointError, brief

# Wrappers of distributed training, torch.compile, sharding and recomputation. They are recognised
# anywhere in a name, since they may wrap parts of a model, and no model has parts of these names.
WRAPPERS = (
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
)
# The attribute in which trainers hold a model. Hugging Face's own names begin with it as well.
HOLDER = "model."


@dataclass(frozen=True)
class Unwrapped:
    """Tensors by their names without the prefixes of wrappers.

    Attributes:
        tensors: plain name → tensor.
        source: plain name → name in the file.
        taken_off: the removed prefixes, each once.
    """

    tensors: dict[str, Any]
    source: dict[str, str]
    taken_off: tuple[str, ...]


def plain_name(name: str) -> str:
    """Removes all ``WRAPPERS`` from a name."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def unwrap(state_dict: Mapping[str, Any], is_known: Callable[[Iterable[str]], bool]) -> Unwrapped:
    """Removes the prefixes of wrappers, in any number and order.

    Args:
        state_dict: the state dict of a file.
        is_known: whether names are those of a known kind of model.

    Raises:
        CheckpointError: only some names of a part have a prefix, or two names are equal without it.
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
    """Checks that all tensors of a part have the same wrappers.

    Raises:
        CheckpointError: some tensors have other wrappers.
    """
    # For each part of the model: the wrappers directly below it → the first name that has them.
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
        f"{brief(having)} has it, {brief(lacking)} doesn't. Save the state dict of one model."
    )

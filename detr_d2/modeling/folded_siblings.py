"""Folds batch norms into convolutions that are modules of their own beside them, as in timm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from detr_d2.modeling.folded_conv import FoldedConv2d

BatchNorm = nn.modules.batchnorm._BatchNorm


class _Uses(TorchFunctionMode):
    """Counts how many operations take each tensor and make tensors of it."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()  # by id
        self.kept: list[torch.Tensor] = []  # so that no two tensors have the same id

    def __torch_function__(
        self, function: Callable, types: Any, args: Sequence = (), kwargs: dict | None = None
    ) -> object:
        result = function(*args, **(kwargs or {}))
        if any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(result)):  # and not a size
            taken = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
            self.counts.update({id(tensor) for tensor in taken})
            self.kept += taken
        return result


def following_norms(
    module: nn.Module, run: Callable[[], object]
) -> list[tuple[nn.Conv2d, BatchNorm]]:
    """Finds pairs of a convolution and the batch norm that takes its output.

    The module is run to find them: both run once, and no other operation takes the output.

    Args:
        module: any.
        run: runs it, in evaluation mode, on any input.
    """
    outputs: dict[int, nn.Conv2d] = {}  # by the id of the output
    followers: list[tuple[int, BatchNorm]] = []
    handles = []
    for part in module.modules():
        if type(part) is nn.Conv2d:
            handles.append(
                part.register_forward_hook(
                    lambda conv, _, output: outputs.update({id(output): conv})
                )
            )
        elif isinstance(part, BatchNorm) and part.affine and part.track_running_stats:
            handles.append(
                part.register_forward_pre_hook(
                    lambda norm, inputs: followers.append((id(inputs[0]), norm))
                )
            )
    try:
        with torch.no_grad(), _Uses() as uses:
            run()
    finally:
        for handle in handles:
            handle.remove()
    runs: Counter[nn.Module] = Counter(outputs.values())
    runs.update(norm for _, norm in followers)
    pairs = ((outputs[key], norm, key) for key, norm in followers if key in outputs)
    return [
        (conv, norm)
        for conv, norm, key in pairs
        if uses.counts[key] == runs[conv] == runs[norm] == 1
    ]


def fold_pairs(module: nn.Module, pairs: Sequence[tuple[nn.Conv2d, BatchNorm]]) -> None:
    """Makes a ``FoldedConv2d`` of each pair that ``following_norms`` found in a module.

    The activation of a norm stays in the norm's place. Parameters, buffers and modes stay; the
    tensors of a norm get other names.
    """
    names = {part: name for name, part in module.named_modules()}
    for conv, norm in pairs:
        replace_module(module, names[conv], FoldedConv2d.of(conv, norm=_without_activation(norm)))
        rest = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if part]
        replace_module(module, names[norm], nn.Sequential(*rest) if rest else nn.Identity())


def _without_activation(norm: BatchNorm) -> nn.BatchNorm2d:
    """A plain batch norm with the same parameters, buffers and mode."""
    plain = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, device="meta")
    plain.weight, plain.bias = norm.weight, norm.bias
    for name, buffer in norm.named_buffers(recurse=False):
        setattr(plain, name, buffer)
    return plain.train(norm.training)


def replace_module(module: nn.Module, name: str, part: nn.Module) -> None:
    """Replaces the part of a module that has a given name."""
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, part)

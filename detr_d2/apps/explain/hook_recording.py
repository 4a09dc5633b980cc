"""Records the outputs of modules in a forward pass, by hooks that are removed afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn


@contextmanager
def recording(
    model: nn.Module, wanted: Mapping[str, Callable[[Any, Any], Any]]
) -> Iterator[dict[str, list]]:
    """Records modules while the context is open. The hooks are gone after it, also after errors.

    Args:
        model: in training or evaluation mode.
        wanted: for the name of each module, a function that gets the positional arguments and the
            output of a call, and returns what is kept of them. It must copy what the model will
            change in place.

    Yields:
        For each name, a list of what was kept of each call, in order; it fills while the model
        runs.

    Raises:
        AttributeError: the model has no module of a name.
    """
    kept: dict[str, list] = {name: [] for name in wanted}
    with ExitStack() as hooks:
        for name, keep in wanted.items():

            def hook(_module, args, output, calls=kept[name], keep=keep) -> None:
                calls.append(keep(args, output))

            hooks.callback(model.get_submodule(name).register_forward_hook(hook).remove)
        yield kept


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model into evaluation mode, and afterwards each of its modules back into its own."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def output_of(_args: tuple, output: Any) -> Any:
    """Keeps the output of a call as it is."""
    return output

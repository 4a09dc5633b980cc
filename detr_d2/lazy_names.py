"""Names in a package whose modules are imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, names_of: Mapping[str, Sequence[str]]
) -> tuple[list[str], Callable[[str], Any]]:
    """Makes ``__all__`` and ``__getattr__`` of a package in which only some names need Detectron2.

    Args:
        package: its ``__name__``.
        names_of: for each module of the package, the names that it defines for the package.
    """
    homes = {name: module for module, names in names_of.items() for name in names}

    def look_up(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return sorted(homes), look_up

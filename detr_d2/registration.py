"""Adds the names of detr_d2 to Detectron2's registries, without importing Detectron2 itself.

Detectron2 with PyTorch takes seconds to import. Commands that only print their help, prepare data
or run exported models don't need it. So names are registered as soon as somebody imports the module
of Detectron2 that has the registry, and the code behind a name is imported when it is built.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from detr_d2.extras import message_on_missing

# The names of each registry, and the module in which each has its function.
META_ARCHITECTURES = {"DETR": "detr_d2.meta_architecture"}
BACKBONES = {
    "build_detr_resnet_backbone": "detr_d2.modeling.backbone",
    "build_timm_backbone": "detr_d2.modeling.build_timm_backbone",
}


def register_models() -> None:
    """Registers the meta-architecture and the backbones."""
    from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY

    for registry, homes in (
        (META_ARCH_REGISTRY, META_ARCHITECTURES),
        (BACKBONE_REGISTRY, BACKBONES),
    ):
        for name, module in homes.items():
            if name not in registry:
                registry.register(imported_when_called(module, name))


def register_datasets() -> None:
    """Registers the embedded datasets."""
    from detr_d2.data.shapes.shapes_dataset import register_shapes

    register_shapes()


# The function to call after a module was imported. Detectron2 and fvcore use functions that newer
# versions of PyTorch deprecate; the warnings are hidden while these modules are imported.
AFTER_IMPORT: dict[str, Callable[[], None] | None] = {
    "fvcore.nn": None,
    "detectron2.data": register_datasets,
    "detectron2.modeling": register_models,
}


def imported_when_called(module: str, name: str) -> Callable[..., object]:
    """Returns a function that imports the function of this name from a module, and calls it."""

    def call(*args: object, **kwargs: object) -> object:
        return getattr(import_module(module), name)(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    return call


class ImportFollower(MetaPathFinder):
    """Finds the modules of ``AFTER_IMPORT`` as Python does, and calls their functions after it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns a spec whose loader also calls the module's function; None for other modules."""
        spec = PathFinder.find_spec(fullname, path) if fullname in AFTER_IMPORT else None
        if spec is None or spec.loader is None:
            return None
        follow, execute = AFTER_IMPORT[fullname], spec.loader.exec_module

        def execute_and_follow(module: ModuleType) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                execute(module)
            _do(follow)

        spec.loader.exec_module = execute_and_follow  # type: ignore[method-assign]
        return spec


def register() -> None:
    """Registers everything now or, where Detectron2 isn't imported yet, as soon as it is."""
    if not any(isinstance(finder, ImportFollower) for finder in sys.meta_path):
        sys.meta_path.insert(0, ImportFollower())
    for name, follow in AFTER_IMPORT.items():
        if name in sys.modules:
            _do(follow)


def _do(follow: Callable[[], None] | None) -> None:
    """Calls the function of a module, and says what is missing if that fails."""
    try:
        if follow is not None:
            follow()
    except ModuleNotFoundError as error:
        raise ImportError(message_on_missing(error)) from error

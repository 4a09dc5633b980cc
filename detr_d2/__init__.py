"""Panoptic segmentation with DETR as a Detectron2 plugin.

Importing this package registers the meta-architecture ``DETR``, its backbones and the embedded
datasets with Detectron2. Call :func:`add_detr_config` on a Detectron2 config before merging a file
into it. Nothing heavy is imported before it is used, and where Detectron2 or PyTorch is missing,
what doesn't need it works: ``detr_d2.deploy`` and the preparation of data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from detr_d2.extras import message_on_missing
from detr_d2.lazy_names import lazy_names
from detr_d2.registration import register

if TYPE_CHECKING:
    from detr_d2.checkpoint import resolve_config
    from detr_d2.config import add_detr_config, load_config
    from detr_d2.config_files import config_file
    from detr_d2.data.register import register_panoptic

__version__ = "0.1.0"

__all__ = [
    "add_detr_config",
    "config_file",
    "load_config",
    "register_panoptic",
    "resolve_config",
    "__version__",
]

_, _look_up = lazy_names(
    __name__,
    {
        "checkpoint": ["resolve_config"],
        "config": ["add_detr_config", "load_config"],
        "config_files": ["config_file"],
        "data.register": ["register_panoptic"],
    },
)


def __getattr__(name: str) -> object:
    """Imports what a name stands for, and says what is missing if that fails."""
    try:
        return _look_up(name)
    except ModuleNotFoundError as error:
        raise ImportError(message_on_missing(error)) from error


register()

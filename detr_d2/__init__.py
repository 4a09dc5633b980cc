"""Panoptic segmentation with DETR as a Detectron2 plugin.

Importing this package registers the meta-architecture ``DETR``, its backbone and mask head, and
the embedded datasets. Call :func:`add_detr_config` on a Detectron2 config before merging a file
into it. Where Detectron2 or what else training needs is not installed, ``detr_d2.deploy`` works,
and nothing else.
"""

import warnings

from detr_d2.extras import message_on_missing

__version__ = "0.1.0"

__all__ = [
    "add_detr_config",
    "config_file",
    "load_config",
    "register_panoptic",
    "resolve_config",
    "__version__",
]

_missing: ModuleNotFoundError | None = None
try:
    with warnings.catch_warnings():
        # While it is imported, Detectron2 uses what newer versions of PyTorch deprecate.
        warnings.simplefilter("ignore", FutureWarning)
        from detr_d2 import meta_architecture, modeling  # noqa: F401  (importing registers)
        from detr_d2.checkpoint import resolve_config
        from detr_d2.config import add_detr_config, load_config
        from detr_d2.config_files import config_file
        from detr_d2.data.register import register_panoptic
        from detr_d2.data.shapes.shapes_files import register_shapes

    register_shapes()
except ModuleNotFoundError as error:
    _missing = error


def __getattr__(name: str) -> object:
    """Says what is missing where names of this package are wanted and could not be imported."""
    if _missing is None or name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise ImportError(message_on_missing(_missing)) from _missing

"""Panoptic segmentation with DETR as a Detectron2 plugin.

Importing this package registers the meta-architecture ``DETR``, its backbone and mask head, and
the embedded datasets. Call :func:`add_detr_config` on a Detectron2 config before merging a file
into it.
"""

import warnings

__version__ = "0.1.0"

try:
    import detectron2  # noqa: F401
except ImportError as error:
    raise ImportError(
        "detr_d2 needs Detectron2, which is not installed in this environment. Either run "
        "`tools/setup_env.sh` in a checkout of detr_d2, or install Detectron2 yourself with "
        "`pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git'`."
    ) from error

with warnings.catch_warnings():
    # While it is imported, Detectron2 uses what newer versions of PyTorch deprecate.
    warnings.simplefilter("ignore", FutureWarning)
    from detr_d2 import data, modeling  # noqa: F401  (importing registers)
    from detr_d2.config import add_detr_config, config_file, load_config
    from detr_d2.data.register import register_panoptic

__all__ = ["add_detr_config", "config_file", "load_config", "register_panoptic", "__version__"]

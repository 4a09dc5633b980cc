"""Which classes a run has: those of its datasets, or else those that its checkpoint holds."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import log_first_n

from detr_d2.checkpoint.checkpoint import read_checkpoint
from detr_d2.checkpoint.checkpoint_errors import CheckpointError
from detr_d2.checkpoint.sources import names_a_backbone
from detr_d2.data.categories import PanopticClasses, classes_of, first_classes, resolve_classes
from detr_d2.data.lent_classes import lend
from detr_d2.data.panoptic_json import class_metadata
from detr_d2.data.register import register_from_config


def run_classes(cfg: CfgNode) -> PanopticClasses | None:
    """The classes of a config's model, wherever its data is.

    They are those of the datasets, see ``resolve_classes``. Where none of these can be had, they
    are those that ``MODEL.WEIGHTS`` holds. A dataset that can't be had gets them in Detectron2's
    catalog, on loan: names, colours, things and stuff are found there.

    Returns:
        None where neither tells them; always classes where ``MODEL.DETR.NUM_CLASSES`` is 0.

    Raises:
        ValueError: as ``resolve_classes``.
        CheckpointError: the number of classes is to be found in ``MODEL.WEIGHTS``, which can't be
            read.
    """
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    register_from_config(cfg)
    # Datasets that are there tell their classes themselves, at the latest when they are read.
    absent = [name for name in names if classes_of(name) is None and not _is_there(name)]
    if first_classes(names) is not None or len(absent) < len(names):
        classes = resolve_classes(cfg)
    else:
        classes = _classes_of_weights(cfg, names)
    if classes is not None:
        for name in absent:
            lend(name, class_metadata(classes.categories()))
    return classes


def _is_there(name: str) -> bool:
    """Whether a dataset is registered, and all files are there that it is known to need."""
    if name not in DatasetCatalog.list():
        return False
    metadata = MetadataCatalog.get(name)
    paths = (metadata.get(key) for key in ("panoptic_json", "json_file", "image_root"))
    return all(PathManager.exists(path) for path in paths if path)


def _classes_of_weights(cfg: CfgNode, absent: Sequence[str]) -> PanopticClasses | None:
    path, num_classes = cfg.MODEL.WEIGHTS, cfg.MODEL.DETR.NUM_CLASSES
    if not path or names_a_backbone(path):
        return resolve_classes(cfg)
    try:
        classes = read_checkpoint(path).classes
    except CheckpointError:
        if num_classes == 0:
            raise
        return None  # loading it will tell
    if classes is None and num_classes == 0:
        try:
            return resolve_classes(cfg)
        except ValueError as error:
            raise ValueError(
                f"{error} Nor does MODEL.WEIGHTS tell them: {path} doesn't hold its classes, as "
                "checkpoints of other projects and of older versions don't."
            ) from None
    if classes is None or num_classes not in (0, len(classes.names)):
        return None
    named = ", ".join(dict.fromkeys(absent)) or "none is named"
    # Once: a config is resolved by a command, and again by what builds the model.
    log_first_n(
        logging.INFO,
        f"No dataset of DATASETS can be had ({named}): the classes are those that {path} holds, "
        f"{len(classes.names)}, of which {len(classes.things)} are things.",
        key="message",
    )
    return classes

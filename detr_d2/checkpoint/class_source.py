"""Finds the classes of a run: those of its datasets, or else those of its checkpoint."""

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
    """Finds the classes of a config's model, even if its data is not available.

    They are the classes of the datasets, see ``resolve_classes``. If no dataset is available, they
    are those that ``MODEL.WEIGHTS`` holds. Datasets that are not available borrow the classes
    (names, colours, things and stuff) in Detectron2's catalog.

    Returns:
        The classes; None if neither tells them, but never if ``MODEL.DETR.NUM_CLASSES`` is 0.

    Raises:
        ValueError: as ``resolve_classes``.
        CheckpointError: ``MODEL.WEIGHTS`` can't be read, and has to tell the number of classes.
    """
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    register_from_config(cfg)
    # Available datasets tell their classes themselves, at the latest when they are read.
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
    """Whether a dataset is registered, and all files that it is known to need exist."""
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
        return None  # loading the weights will report the error
    if classes is None and num_classes == 0:
        try:
            return resolve_classes(cfg)
        except ValueError as error:
            raise ValueError(
                f"{error} MODEL.WEIGHTS doesn't tell them either: {path} doesn't hold its classes, "
                "like all checkpoints of other projects and of older versions."
            ) from None
    if classes is None or num_classes not in (0, len(classes.names)):
        return None
    named = ", ".join(dict.fromkeys(absent)) or "none is named"
    # Logged once, although a config is resolved by a command, and again to build the model.
    log_first_n(
        logging.INFO,
        f"No dataset of DATASETS is available ({named}): the classes are those that {path} holds, "
        f"{len(classes.names)}, of which {len(classes.things)} are things.",
        key="message",
    )
    return classes

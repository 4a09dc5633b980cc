"""A config in which nothing is left open: its device exists, and its number of classes is told."""

from __future__ import annotations

import logging

import torch
from detectron2.config import CfgNode

from detr_d2.checkpoint.class_source import run_classes
from detr_d2.config_checks import check_config

logger = logging.getLogger(__name__)


def resolve_config(cfg: CfgNode) -> CfgNode:
    """A checked copy of a config in which what depends on this machine and its files is filled in.

    ``MODEL.DEVICE`` is the CPU where it asks for a GPU that isn't there, and a
    ``MODEL.DETR.NUM_CLASSES`` of 0 is the number that ``run_classes`` finds. A resolved config
    resolves to itself; a frozen one stays frozen.

    Raises:
        ValueError: a key has a value that cannot work, or nothing tells the number of classes.
        CheckpointError: see ``run_classes``.
    """
    resolved = cfg.clone()
    resolved.defrost()
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        logger.info("No GPU found for MODEL.DEVICE %r: running on the CPU.", cfg.MODEL.DEVICE)
        resolved.MODEL.DEVICE = "cpu"
    check_config(resolved)
    if resolved.MODEL.DETR.NUM_CLASSES == 0:
        classes = run_classes(resolved)  # which raises where nothing tells them
        resolved.MODEL.DETR.NUM_CLASSES = len(classes.names) if classes else 0
    if cfg.is_frozen():
        resolved.freeze()
    return resolved

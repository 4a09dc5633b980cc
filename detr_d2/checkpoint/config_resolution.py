"""Completes a config: an existing device, and the number of classes."""

from __future__ import annotations

import logging

import torch
from detectron2.config import CfgNode

from detr_d2.checkpoint.class_source import run_classes
from detr_d2.config_checks import PART_RESOLVERS, check_config, require

logger = logging.getLogger(__name__)


def resolve_config(cfg: CfgNode) -> CfgNode:
    """Returns a checked copy of a config, with values that depend on this machine and its files.

    ``MODEL.DEVICE`` becomes the CPU if there is no GPU, and a ``MODEL.DETR.NUM_CLASSES`` of 0
    becomes the number that ``run_classes`` finds. A resolved config resolves to itself. A frozen
    config stays frozen.

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
    for resolve in PART_RESOLVERS:
        resolve(resolved)
    for key in ("PIXEL_MEAN", "PIXEL_STD"):
        values = resolved.MODEL[key]
        require(len(values) == 3, f"MODEL.{key}", values, "three numbers, one for each channel")
    if resolved.MODEL.DETR.NUM_CLASSES == 0:
        classes = run_classes(resolved)  # raises an error if nothing tells them
        resolved.MODEL.DETR.NUM_CLASSES = len(classes.names) if classes else 0
    if cfg.is_frozen():
        resolved.freeze()
    return resolved

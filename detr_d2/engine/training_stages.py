"""The stages of a training run: what each of them changes in the config.

A run goes through ``SOLVER.STAGES`` in order. "boxes" trains the detector on boxes of things and
stuff; "masks" freezes it and trains the mask head alone; "joint" trains everything at once.
"""

from __future__ import annotations

import itertools
import logging
import os
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from detr_d2.checkpoint import CheckpointError
from detr_d2.checkpoint.model_zoo import whole_model_in
from detr_d2.checkpoint.sources import names_a_backbone

logger = logging.getLogger(__name__)

FINAL_WEIGHTS = "model_final.pth"


def stage_config(cfg: CfgNode, stage: str) -> CfgNode:
    """Returns the config of one stage, whose output goes to a folder of the stage's name.

    Args:
        cfg: the config of the run, which is not changed.
        stage: "boxes", "masks" or "joint".
    """
    staged = cfg.clone()
    staged.defrost()
    staged.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, stage)
    detr = staged.MODEL.DETR
    detr.MASK_ON = stage != "boxes"
    detr.FREEZE_DETECTOR = stage == "masks"
    if stage == "masks":
        for key, value in cfg.SOLVER.MASK_STAGE.items():
            staged.SOLVER[key] = value
        staged.MODEL.WEIGHTS = cfg.MODEL.DETR.FROZEN_WEIGHTS or final_weights(cfg, "boxes")
    staged.freeze()
    return staged


def final_weights(cfg: CfgNode, stage: str) -> str:
    """Returns the path of a finished stage's model."""
    return os.path.join(cfg.OUTPUT_DIR, stage, FINAL_WEIGHTS)


def set_aside(cfg: CfgNode, stage: str) -> None:
    """Moves the output of a stage in an older run to ``OUTPUT_DIR/previous_<n>``.

    The folder is renamed in one step, so that a kill leaves it either in the old or in the new
    place.

    Args:
        cfg: the config of the run.
        stage: the stage's name. If its folder has no checkpoints, nothing happens.
    """
    folder = Path(cfg.OUTPUT_DIR, stage)
    has_checkpoints = any(folder.glob("*.pth")) or (folder / "last_checkpoint").exists()
    if not comm.is_main_process() or not has_checkpoints:
        return
    places = (Path(cfg.OUTPUT_DIR, f"previous_{n}", stage) for n in itertools.count(1))
    place = next(place for place in places if not place.exists())
    place.parent.mkdir(exist_ok=True)
    folder.rename(place)
    logger.info("Stage %r: the output of an older run is now in %s", stage, place)


def check_starting_point(cfg: CfgNode) -> None:
    """Checks that the stage "masks", if it is run, has a detector to start from.

    Args:
        cfg: the config of the run.

    Raises:
        FileNotFoundError: there is no detector; the message names the missing file.
    """
    if "masks" not in cfg.SOLVER.STAGES:
        return
    weights = stage_config(cfg, "masks").MODEL.WEIGHTS
    if "://" not in weights and not PathManager.exists(weights):
        raise FileNotFoundError(
            f"The stage 'masks' starts from a trained detector, but {weights} doesn't exist. Name "
            "one in MODEL.DETR.FROZEN_WEIGHTS, or run the stage 'boxes' with the same OUTPUT_DIR."
        )


def check_batch_sizes(cfg: CfgNode) -> None:
    """Checks that the batches of all stages can be divided evenly.

    Raises:
        ValueError: a batch can't be divided by the number of processes times
            ``SOLVER.ACCUMULATION_STEPS``.
    """
    processes, steps = comm.get_world_size(), cfg.SOLVER.ACCUMULATION_STEPS
    for stage in cfg.SOLVER.STAGES:
        key = "SOLVER.MASK_STAGE.IMS_PER_BATCH" if stage == "masks" else "SOLVER.IMS_PER_BATCH"
        size = stage_config(cfg, stage).SOLVER.IMS_PER_BATCH
        if size <= 0 or size % (processes * steps):
            raise ValueError(
                f"{key} is {size}, but must be divisible by {processes * steps}: the number of "
                f"processes ({processes}) times SOLVER.ACCUMULATION_STEPS ({steps})."
            )


def evaluation_config(cfg: CfgNode) -> CfgNode:
    """Returns the config to evaluate or predict with, by default with the last stage's weights.

    ``MODEL.WEIGHTS`` takes precedence, unless it names ImageNet weights, which are only a backbone
    to train from. The stage "boxes" gives a model without masks.

    Raises:
        FileNotFoundError: ``MODEL.WEIGHTS`` doesn't exist, or names no model and no stage has
            finished.
        CheckpointError: ``MODEL.WEIGHTS`` is a whole model of another kind.
    """
    evaluated = cfg.clone()
    evaluated.defrost()
    weights = cfg.MODEL.WEIGHTS
    if not weights or names_a_backbone(weights):
        other_model = whole_model_in(weights)
        if other_model:
            raise CheckpointError(f"MODEL.WEIGHTS: {other_model}")
        stage = _last_finished_stage(cfg)
        evaluated.MODEL.WEIGHTS = final_weights(cfg, stage)
        if stage == "boxes":
            evaluated.MODEL.DETR.MASK_ON = False
    elif "://" not in weights and not PathManager.exists(weights):
        raise FileNotFoundError(f"MODEL.WEIGHTS: {weights} doesn't exist.")
    evaluated.freeze()
    return evaluated


def _last_finished_stage(cfg: CfgNode) -> str:
    for stage in reversed(cfg.SOLVER.STAGES):
        if PathManager.exists(final_weights(cfg, stage)):
            return stage
    what = ", a backbone to train from" if cfg.MODEL.WEIGHTS else ""
    raise FileNotFoundError(
        f"No trained model: MODEL.WEIGHTS is {cfg.MODEL.WEIGHTS!r}{what}, and no stage of "
        f"{cfg.OUTPUT_DIR} ({', '.join(cfg.SOLVER.STAGES)}) has left a {FINAL_WEIGHTS}."
    )

"""The stages of a training run: what each of them changes in the config.

A run goes through ``SOLVER.STAGES`` in order. "boxes" trains the detector on boxes of things and
stuff; "masks" fixes it and trains the mask head alone; "joint" trains everything at once.
"""

from __future__ import annotations

import os
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from detr_d2.checkpoint import TorchvisionHandler

FINAL_WEIGHTS = "model_final.pth"


def stage_config(cfg: CfgNode, stage: str) -> CfgNode:
    """The config of one stage. Its output goes to a folder of the stage's name.

    Args:
        cfg: the config of the run; left as it is.
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
    """Where a finished stage leaves its model."""
    return os.path.join(cfg.OUTPUT_DIR, stage, FINAL_WEIGHTS)


def set_aside_previous_run(output_dir: str) -> None:
    """Makes sure that a stage begun anew is never resumed from what an older one left.

    The older one's model is kept, as ``model_previous.pth``.
    """
    if not comm.is_main_process():
        return
    folder = Path(output_dir)
    if (folder / FINAL_WEIGHTS).exists():
        (folder / FINAL_WEIGHTS).replace(folder / "model_previous.pth")
    (folder / "last_checkpoint").unlink(missing_ok=True)


def check_starting_point(cfg: CfgNode) -> None:
    """Makes sure that the stage "masks", if it is run, has a detector to start from.

    Args:
        cfg: the config of the run.

    Raises:
        FileNotFoundError: it hasn't; says where it was looked for.
    """
    if "masks" not in cfg.SOLVER.STAGES:
        return
    weights = stage_config(cfg, "masks").MODEL.WEIGHTS
    if "://" not in weights and not PathManager.exists(weights):
        raise FileNotFoundError(
            f"The stage 'masks' starts from a trained detector, but {weights} doesn't exist. Name "
            "one in MODEL.DETR.FROZEN_WEIGHTS, or run the stage 'boxes' with the same OUTPUT_DIR."
        )


def evaluation_config(cfg: CfgNode) -> CfgNode:
    """The config to evaluate or predict with: ``MODEL.WEIGHTS``, or else what the last stage left.

    ImageNet weights are a backbone to train from, and no model. What the stage "boxes" left is a
    model without masks.

    Raises:
        FileNotFoundError: ``MODEL.WEIGHTS`` doesn't exist, or names no model and no stage has
            finished.
    """
    evaluated = cfg.clone()
    evaluated.defrost()
    weights = cfg.MODEL.WEIGHTS
    if not weights or weights.endswith(".pkl") or weights.startswith(TorchvisionHandler.PREFIX):
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
    raise FileNotFoundError(
        f"No trained model: MODEL.WEIGHTS is {cfg.MODEL.WEIGHTS!r}, and no stage of "
        f"{cfg.OUTPUT_DIR} ({', '.join(cfg.SOLVER.STAGES)}) has left a {FINAL_WEIGHTS}."
    )

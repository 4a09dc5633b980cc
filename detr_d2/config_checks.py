"""The checks on the values of configuration keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

from detectron2.config import CfgNode

STAGES = ("boxes", "masks", "joint")
# Tasks of COCO's average precision.
AP_TASKS = ("bbox", "segm")
# Checks of parts that are registered by name, such as mask heads and rules of merging.
# ``check_config`` calls each of them. They raise the same errors as ``check_config``.
PART_CHECKS: list[Callable[[CfgNode], None]] = []
# Parts that complete a config, such as backbones that know their pixel statistics. Each is called
# by ``resolve_config``, with the config that it resolves.
PART_RESOLVERS: list[Callable[[CfgNode], None]] = []


def import_parts() -> None:
    """Imports the parts of the model, so that they are in the two lists."""
    import_module("detr_d2.modeling")


def check_config(cfg: CfgNode) -> None:
    """Refuses values that cannot work, before anything is built from them.

    Raises:
        ValueError: with the name of the key, its value and what it may be.
    """
    detr = cfg.MODEL.DETR
    for key in ("NUM_QUERIES", "HIDDEN_DIM", "NUM_HEADS", "DEC_LAYERS"):
        require(detr[key] >= 1, f"MODEL.DETR.{key}", detr[key], "at least 1")
    for key in ("NUM_CLASSES", "ENC_LAYERS"):
        require(detr[key] >= 0, f"MODEL.DETR.{key}", detr[key], "at least 0")
    width, heads = detr.HIDDEN_DIM, detr.NUM_HEADS
    wanted = f"divisible by MODEL.DETR.NUM_HEADS ({heads})"
    require(width % heads == 0, "MODEL.DETR.HIDDEN_DIM", width, wanted)
    require(0 <= detr.DROPOUT < 1, "MODEL.DETR.DROPOUT", detr.DROPOUT, "in [0, 1)")
    features, wanted = detr.IN_FEATURES, "four names of backbone outputs, finest first"
    require(len(features) == 4, "MODEL.DETR.IN_FEATURES", features, wanted)
    temperature = detr.POSITION_TEMPERATURE
    require(temperature > 0, "MODEL.DETR.POSITION_TEMPERATURE", temperature, "above 0")
    positions = detr.POSITION_EMBEDDING
    require_one_of(positions, "MODEL.DETR.POSITION_EMBEDDING", ("sine", "learned"))
    # Rows and columns get half of the width each; sines and cosines alternate.
    parts = {"sine": 4, "learned": 2}[positions]
    wanted = f"divisible by {parts}, for MODEL.DETR.POSITION_EMBEDDING {positions!r}"
    require(width % parts == 0, "MODEL.DETR.HIDDEN_DIM", width, wanted)
    require_one_of(detr.TEST.PRECISION, "MODEL.DETR.TEST.PRECISION", ("float32", "bfloat16"))
    threshold, key = detr.TEST.SCORE_THRESH, "MODEL.DETR.TEST.SCORE_THRESH"
    require(0 <= threshold <= 1, key, threshold, "in [0, 1]")
    threshold, key = detr.TEST.INSTANCE_SCORE_THRESH, "MODEL.DETR.TEST.INSTANCE_SCORE_THRESH"
    require(0 <= threshold <= 1 or threshold == -1, key, threshold, "in [0, 1], or -1")
    for key in ("AP", "AP_WHILE_TRAINING"):
        for task in detr.TEST[key]:
            require_one_of(task, f"MODEL.DETR.TEST.{key}", AP_TASKS)
    require(
        detr.LOSS.NUM_POINTS >= 0, "MODEL.DETR.LOSS.NUM_POINTS", detr.LOSS.NUM_POINTS, "at least 0"
    )
    for key in ("MIN_AREA", "NUM_PICTURES"):
        require(detr.TEST[key] >= 0, f"MODEL.DETR.TEST.{key}", detr.TEST[key], "at least 0")
    gigabytes, crops = detr.FEATURE_CACHE_GB, cfg.INPUT.CROP_PROB
    require(gigabytes >= 0, "MODEL.DETR.FEATURE_CACHE_GB", gigabytes, "at least 0")
    wanted = "0 with MODEL.DETR.FEATURE_CACHE_GB: no crop comes twice"
    require(not gigabytes or crops == 0, "INPUT.CROP_PROB", crops, wanted)
    require(len(cfg.SOLVER.STAGES) > 0, "SOLVER.STAGES", cfg.SOLVER.STAGES, "a list of stages")
    for stage in cfg.SOLVER.STAGES:
        require_one_of(stage, "SOLVER.STAGES", STAGES)
    steps = cfg.SOLVER.ACCUMULATION_STEPS
    require(steps >= 1, "SOLVER.ACCUMULATION_STEPS", steps, "at least 1")
    require_one_of(cfg.SOLVER.OPTIMIZER, "SOLVER.OPTIMIZER", ("ADAMW", "SGD"))
    require_one_of(cfg.INPUT.FORMAT, "INPUT.FORMAT", ("RGB", "BGR"))
    deep = cfg.INPUT.DEEP_RANGE
    require(255 <= deep <= 65535, "INPUT.DEEP_RANGE", deep, "in 255 … 65535")
    wanted = "[name, image_root, panoptic_root, panoptic_json] in each entry, four texts"
    for entry in cfg.DATASETS.PANOPTIC:
        fields = entry if isinstance(entry, (list, tuple)) else []
        texts = [text for text in fields if isinstance(text, str) and text]
        require(len(texts) == len(fields) == 4, "DATASETS.PANOPTIC", entry, wanted)
    crowds = cfg.DATASETS.CROWDS_AS_THINGS
    require(isinstance(crowds, bool), "DATASETS.CROWDS_AS_THINGS", crowds, "True or False")
    require_one_of(cfg.DATALOADER.ON_ERROR, "DATALOADER.ON_ERROR", ("raise", "skip"))
    skipped = cfg.DATALOADER.MAX_SKIPPED
    require(0 <= skipped < 1, "DATALOADER.MAX_SKIPPED", skipped, "in [0, 1)")
    import_parts()
    for check in PART_CHECKS:
        check(cfg)


def require(condition: bool, key: str, value: object, wanted: str) -> None:
    """Raises a ``ValueError`` with key, value and what is wanted, unless the condition holds."""
    if not condition:
        raise ValueError(f"{key} is {value!r}, but must be {wanted}.")


def require_one_of(value: str, key: str, allowed: Sequence[str]) -> None:
    """``require`` for keys that have one of a few values."""
    require(value in allowed, key, value, "one of " + ", ".join(map(repr, allowed)))

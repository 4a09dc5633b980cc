"""A run through both stages, which many tests look at, and the log that it wrote."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from detectron2.config import CfgNode

# All that is random in training: dropout, flips, crops and sizes. Checkpoints after every second
# iteration of a stage, evaluation after the third. So early, only a low threshold and little weight
# on "no object" give predictions that could differ.
RANDOM_TRAINING = (
    *("MODEL.DETR.DROPOUT", 0.1, "INPUT.CROP_PROB", 0.5, "INPUT.CROP_RESIZE", [56, 72]),
    *("INPUT.CROP_RANGE", [48, 64], "INPUT.MIN_SIZE_TRAIN", [48, 64]),
    *("SOLVER.MAX_ITER", 5, "SOLVER.MASK_STAGE.MAX_ITER", 5, "SOLVER.CHECKPOINT_PERIOD", 2),
    *("TEST.EVAL_PERIOD", 3, "MODEL.DETR.TEST.SCORE_THRESH", 0.0),
    *("MODEL.DETR.LOSS.NO_OBJECT_WEIGHT", 0.01, "MODEL.DETR.TEST.SAVE_PREDICTIONS", True),
)


@dataclass(frozen=True)
class Run:
    """A finished run: its config, what ``train`` returned, and the lines of its log."""

    cfg: CfgNode
    results: OrderedDict
    log: list[str]

    @property
    def folder(self) -> Path:
        return Path(self.cfg.OUTPUT_DIR)


@contextmanager
def recorded_log() -> Iterator[list[str]]:
    """Records what detr_d2 logs; pytest's own recorder serves single tests alone."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("detr_d2")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture(scope="session")
def make_random_cfg(make_tiny_cfg: Callable[..., CfgNode]) -> Callable[..., CfgNode]:
    """Makes configs of training with all its randomness: ``(output_dir, *overrides)``."""
    return lambda output_dir, *overrides: make_tiny_cfg(output_dir, *RANDOM_TRAINING, *overrides)


@pytest.fixture(scope="session")
def finished_run(
    make_random_cfg: Callable[..., CfgNode], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Both stages by one call, never interrupted. Not to be written to."""
    from detr_d2.engine import train

    cfg = make_random_cfg(tmp_path_factory.mktemp("finished"))
    cfg.freeze()
    with recorded_log() as lines:
        results = train(cfg)
    return Run(cfg, results, lines)

"""A run of both stages and its log, which many tests read."""

from __future__ import annotations

import functools
import importlib
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
    """Records the log of detr_d2; pytest's own recorder works only within one test."""
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
    """Makes configs of trainings with dropout and augmentation: ``(output_dir, *overrides)``."""
    return lambda output_dir, *overrides: make_tiny_cfg(output_dir, *RANDOM_TRAINING, *overrides)


@pytest.fixture(scope="session")
def make_fast_cfg(make_tiny_cfg: Callable[..., CfgNode]) -> Iterator[Callable[..., CfgNode]]:
    """Makes configs of a model with few tensors: its training starts and saves very fast.

    ``(output_dir, *overrides)``. Both stages have one step each, and there is no evaluation.
    """
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import BACKBONE_REGISTRY, Backbone
    from torch import nn

    class FourConvolutions(Backbone):
        def __init__(self, cfg, input_shape):
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(i, 8, s, s) for i, s in ((3, 4), *[(8, 2)] * 3))

        def forward(self, x):
            outputs = {}
            for name, layer in zip(self.output_shape(), self.layers, strict=True):
                x = outputs[name] = layer(x).relu()
            return outputs

        def output_shape(self):
            return {f"res{i}": ShapeSpec(channels=8, stride=2**i) for i in (2, 3, 4, 5)}

    BACKBONE_REGISTRY.register(FourConvolutions)
    settings = (
        *("MODEL.BACKBONE.NAME", "FourConvolutions", "MODEL.DETR.DEC_LAYERS", 1),
        *("SOLVER.MAX_ITER", 1, "SOLVER.MASK_STAGE.MAX_ITER", 1, "DATASETS.TEST", ()),
    )
    yield lambda output_dir, *overrides: make_tiny_cfg(output_dir, *settings, *overrides)
    del BACKBONE_REGISTRY._obj_map["FourConvolutions"]


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes Detectron2's launcher fork, because fresh processes would spend 20 s on imports."""
    module = importlib.import_module("detectron2.engine.launch")
    start = functools.partial(module.mp.start_processes, start_method="fork")
    monkeypatch.setattr(module.mp, "start_processes", start)


@pytest.fixture
def images_of_one_size(small_shapes: dict[str, int]) -> Iterator[str]:
    """Registers a dataset of equal sizes, because the padding of batches differs by process."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from detr_d2.data.panoptic_dataset import set_panoptic_metadata
    from detr_d2.data.shapes.shape_categories import CATEGORIES

    images = [image for name in small_shapes for image in DatasetCatalog.get(name)]
    sizes = [(image["height"], image["width"]) for image in images]
    most = max(set(sizes), key=sizes.count)
    chosen = [image for image, size in zip(images, sizes, strict=True) if size == most]
    assert len(chosen) >= 4
    assert len({len(image["segments_info"]) for image in chosen[:4]}) > 1
    name = "small_shapes_of_one_size"
    DatasetCatalog.register(name, lambda: chosen)
    set_panoptic_metadata(name, map(vars, CATEGORIES))
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.fixture(scope="session")
def finished_run(
    make_random_cfg: Callable[..., CfgNode], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Runs both stages in one call, without interruption. Tests must not write to its folder."""
    from detr_d2.engine import train

    cfg = make_random_cfg(tmp_path_factory.mktemp("finished"))
    cfg.freeze()
    with recorded_log() as lines:
        results = train(cfg)
    return Run(cfg, results, lines)

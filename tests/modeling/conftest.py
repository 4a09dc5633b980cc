"""Tiny models and made-up data for the tests of the model."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from detr_d2 import add_detr_config, config_file
from detr_d2.modeling import DETR, AttentionMaskHead
from detr_d2.modeling.targets import Target

NUM_CLASSES = 6

TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 32,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
    "MODEL.DETR.NUM_CLASSES": NUM_CLASSES,
    "MODEL.DETR.NUM_QUERIES": 7,
    "MODEL.DETR.HIDDEN_DIM": 32,
    "MODEL.DETR.NUM_HEADS": 4,
    "MODEL.DETR.ENC_LAYERS": 2,
    "MODEL.DETR.DEC_LAYERS": 2,
    "MODEL.DETR.DIM_FEEDFORWARD": 64,
    # All instances: scores of random weights are low.
    "MODEL.DETR.TEST.INSTANCE_SCORE_THRESH": 0.0,
    "DATASETS.TRAIN": (),
    "DATASETS.TEST": (),
}


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., CfgNode]:
    """Config of the reference's layout at an eighth of its width; its values are not checked."""

    def make(overrides: dict | None = None) -> CfgNode:
        cfg = get_cfg()
        add_detr_config(cfg)
        cfg.merge_from_file(config_file("detr_panoptic.yaml"))
        merged = {**TINY, **(overrides or {})}
        cfg.merge_from_list([item for pair in merged.items() for item in pair])
        return cfg

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_config) -> Callable[..., DETR]:
    """A tiny model, the same for the same seed; its batch norms are not the identity."""

    def make(overrides: dict | None = None, seed: int = 0) -> DETR:
        torch.manual_seed(seed)
        model = build_model(tiny_config(overrides))
        _vary_batch_norms(model.detector.backbone)
        return model

    return make


def _vary_batch_norms(module: nn.Module) -> None:
    """Gives frozen and trained batch norms statistics and affine parts of all sorts."""
    for part in module.modules():
        if hasattr(part, "running_var"):
            for tensor, low, high in (
                (part.weight.data, 0.4, 1.0),
                (part.bias.data, -0.2, 0.2),
                (part.running_mean, -0.2, 0.2),
                (part.running_var, 0.5, 2.0),
            ):
                nn.init.uniform_(tensor, low, high)


@pytest.fixture(scope="session")
def vary_batch_norms() -> Callable[[nn.Module], None]:
    return _vary_batch_norms


def _random_boxes(num_targets: int, size: tuple[int, int], rng: torch.Generator) -> torch.Tensor:
    """T×4 (x0, y0, x1, y1) in whole pixels, none empty."""
    high = torch.tensor([size[1], size[0]])
    corners = torch.rand(num_targets, 2, 2, generator=rng) * (high - 4)
    first, second = corners.floor().sort(dim=1).values.unbind(1)
    return torch.cat([first, second + 3], dim=1)


def _paint(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """T×H×W bool: boxes filled."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.long().tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


@pytest.fixture(scope="session")
def make_head() -> Callable[..., AttentionMaskHead]:
    """Makes the same tiny mask head each time: D = 32, four heads, laterals of 24, 12, 10 channels.

    ``softmax`` is "joint" or "per_head".
    """

    def make(
        softmax: str = "joint", chunk_size: int = 16, checkpointing: bool = False
    ) -> AttentionMaskHead:
        torch.manual_seed(0)
        head = AttentionMaskHead(
            hidden_dim=32,
            num_heads=4,
            attention_softmax=softmax,
            lateral_channels=(24, 12, 10),
            chunk_size=chunk_size,
            checkpointing=checkpointing,
        )
        for parameter in head.parameters():  # biases and norms that do something
            if parameter.ndim == 1:
                nn.init.uniform_(parameter, -1, 1)
        return head

    return make


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., list[dict]]:
    """Detectron2's input: random images of the given sizes, each with random rectangles."""

    def make(*sizes: tuple[int, int], num_targets: int = 3, seed: int = 0) -> list[dict]:
        rng = torch.Generator().manual_seed(seed)
        batch = []
        for size in sizes:
            instances = Instances(size)
            boxes = _random_boxes(num_targets, size, rng)
            instances.gt_boxes = Boxes(boxes)
            instances.gt_classes = torch.randint(NUM_CLASSES, (num_targets,), generator=rng)
            instances.gt_masks = BitMasks(_paint(boxes, size))
            image = torch.randint(256, (3, *size), generator=rng, dtype=torch.uint8)
            batch.append({"image": image, "instances": instances})
        return batch

    return make


@pytest.fixture(scope="session")
def make_targets(make_batch) -> Callable[..., list[Target]]:
    """Targets of random rectangles; ``counts`` says how many in each image."""

    def make(*counts: int, size: tuple[int, int] = (32, 40), seed: int = 0) -> list[Target]:
        batch = [make_batch(size, num_targets=n, seed=seed + i)[0] for i, n in enumerate(counts)]
        return [Target.from_instances(x["instances"], with_masks=True) for x in batch]

    return make


@pytest.fixture
def log_lines():
    """What the package logs during a test, from INFO on, whatever the loggers' settings."""
    lines: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, listener = logging.getLogger("detr_d2"), Listener()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(listener)
    yield lines
    logger.removeHandler(listener)
    logger.setLevel(level)


class Operations(TorchDispatchMode):
    """Records what reaches the kernels, autocast and autograd having done their part.

    Attributes:
        calls: for each operation its name, e.g. "convolution", and the shapes and types of the
            tensors that it took and gave.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, list[tuple], list[tuple]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.calls.append(
            (func.overloadpacket.__name__, _describe((args, kwargs)), _describe(result))
        )
        return result

    def names(self) -> list[str]:
        return [name for name, _, _ in self.calls]

    def shapes(self) -> list[torch.Size]:
        """Of all tensors that were made, those included that are views."""
        return [shape for _, _, given in self.calls for shape, _ in given]

    def largest(self) -> int:
        """The number of elements of the largest of them."""
        return max(shape.numel() for shape in self.shapes())


def _describe(tree: object) -> list[tuple[torch.Size, torch.dtype]]:
    return [(x.shape, x.dtype) for x in tree_leaves(tree) if isinstance(x, torch.Tensor)]


@pytest.fixture(scope="session")
def record_operations() -> type[Operations]:
    """``with record_operations() as operations:`` records the work done inside."""
    return Operations

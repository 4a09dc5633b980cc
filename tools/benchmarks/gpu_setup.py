"""Shared parts of the checks on a GPU: a random model, an image, a batch, and exceptions.

Axes: Q queries, K classes, H×W an image.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from benchmarks.benchmark_settings import BenchmarkSettings
from benchmarks.inference import class_logits
from benchmarks.subjects import score_threshold
from benchmarks.training import make_scene
from benchmarks.weights import random_image, randomise, spread_classes
from detr_d2 import config_file, load_config
from detr_d2.modeling import DETR

# A model that a CPU runs quickly, for --quick. All else is as in the released R50 model.
TINY_MODEL = {
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.DETR.HIDDEN_DIM": 32,
    "MODEL.DETR.ENC_LAYERS": 1,
    "MODEL.DETR.DEC_LAYERS": 2,
    "MODEL.DETR.DIM_FEEDFORWARD": 48,
}


class CheckFailed(Exception):
    """A check has found an error. The exception may hold figures."""

    def __init__(self, reason: str, figures: dict | None = None) -> None:
        super().__init__(reason)
        self.figures = figures or {}


class CheckSkipped(Exception):
    """A check can't be run on this machine; the message says why."""


class Bench:
    """The model, the image and the batch of all checks. Each is made when it is first used.

    Attributes:
        settings: device, sizes and seed.
        quick: whether the model is tiny.
    """

    def __init__(self, settings: BenchmarkSettings, quick: bool) -> None:
        self.settings = settings
        self.quick = quick

    @property
    def on_gpu(self) -> bool:
        return self.settings.device.startswith("cuda")

    def require_gpu(self, what: str) -> None:
        """Skips a check that needs a GPU; ``what`` begins the reason.

        Raises:
            CheckSkipped: the checks run on a CPU.
        """
        if not self.on_gpu:
            raise CheckSkipped(f"{what} needs a GPU")

    def config(self, **overrides: object) -> CfgNode:
        """Makes a config. Overrides are keys below ``MODEL.DETR``, with ``__`` for the dot."""
        keys = {f"MODEL.DETR.{key.replace('__', '.')}": x for key, x in overrides.items()}
        # Models are built on the CPU, so that initial values are the same for all devices.
        fixed = {"MODEL.DEVICE": "cpu", "MODEL.WEIGHTS": "", "MODEL.DETR.TEST.INSTANCES_ON": False}
        keys = {**fixed, **(TINY_MODEL if self.quick else {}), **keys}
        return load_config(
            config_file("detr_panoptic.yaml"), list(itertools.chain.from_iterable(keys.items()))
        )

    def build(self, cfg: CfgNode, device: str | None = None) -> DETR:
        """Builds a model with the random weights, in evaluation mode.

        Args:
            cfg: its config; a model without masks takes only the detector's weights.
            device: None: the device of the settings.
        """
        model = build_model(cfg)
        wanted = model.state_dict()
        model.load_state_dict({name: self.weights[name] for name in wanted})
        return model.to(device or self.settings.device).eval()

    def predictor(self, device: str | None = None, **overrides: object) -> DETR:
        """Builds a model that keeps as many queries of the image as the settings say."""
        return self.build(self.config(TEST__SCORE_THRESH=self.score_thresh, **overrides), device)

    @cached_property
    def weights(self) -> dict[str, torch.Tensor]:
        """Weights of a random model whose queries differ clearly, on the CPU."""
        torch.manual_seed(self.settings.seed)
        model = build_model(self.config()).eval()
        height, width = self.settings.size
        randomise(model, attention_weight=0.6 * (height // 32) * (width // 32))
        with torch.no_grad():
            for name, module in model.detector.backbone.named_modules():
                if name.endswith((".conv3.norm", ".conv2.norm")):
                    module.weight *= 0.5  # otherwise activations double in each block
            hidden = model.detector(model.preprocess([{"image": self.image}])).hidden[-1, 0]  # Q×D
            spread_classes(model.detector.class_head, hidden)
            model.mask_head.output_conv.bias -= 4  # most pixels belong to no mask
        return model.state_dict()

    @cached_property
    def image(self) -> torch.Tensor:
        """3×H×W uint8."""
        return random_image(self.settings.size, torch.Generator().manual_seed(self.settings.seed))

    @cached_property
    def batch(self) -> list[dict]:
        """Two training images, one of which gets padding."""
        height, width = self.settings.size
        return [
            {
                "image": self.image[:, : size[0], : size[1]],
                "instances": make_scene(size, self.settings.num_targets, self.settings.seed + i),
            }
            for i, size in enumerate([(height, width), (height - 32, width - 32)])
        ]

    @cached_property
    def score_thresh(self) -> float:
        model = self.build(self.config(), "cpu")
        return score_threshold(class_logits(model, self.image), self.settings.kept)

    def describe(self) -> dict:
        """The settings that the checks depend on."""
        return {
            name: value
            for name, value in asdict(self.settings).items()
            if name in ("device", "threads", "repeats", "seed", "size", "kept", "num_targets")
        } | {"quick": self.quick}


@contextmanager
def exact_float32() -> Iterator[None]:
    """Turns TF32 off, which has 10 bits where float32 has 23."""
    places = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = False
        yield
    finally:
        for place, allowed in zip(places, before, strict=True):
            place.allow_tf32 = allowed


def peak_mib(bench: Bench) -> float | None:
    """Peak of the GPU's allocated memory since ``forget_peak``, in MiB; None on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**20 if bench.on_gpu else None


def forget_peak(bench: Bench) -> None:
    """Resets the peak to the memory that is allocated now."""
    if bench.on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()

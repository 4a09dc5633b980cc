"""Pairs of models with the same weights, transformers' and ours, and what tests measured on them.

Axes: B images, Q queries, K classes; H×W the padded batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detr_d2 import config_file, load_config
from detr_d2.engine.checkpoint import StrictCheckpointer
from detr_d2.modeling import DETR

if TYPE_CHECKING:
    from transformers import DetrConfig, PreTrainedModel

# What was measured, in the order of the tests: largest difference and tolerance.
FIGURES: dict[str, tuple[float, float]] = {}
# Queries whose masks are computed at a time, to bound memory.
QUERIES_AT_ONCE = 4
# The layout of a ResNet-50 at an eighth of its width, which transformers builds without timm.
TINY_RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [32, 64, 128, 256],
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
TINY = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_queries": 9,
    "num_labels": 6,
}


@pytest.fixture
def record_parity() -> Callable[..., None]:
    """Checks a figure, and keeps the largest of its name for the table at the end of the run.

    ``record_parity(what, measured, tolerance)``; without a tolerance the figure is only shown.
    """

    def record(what: str, measured: float, tolerance: float = math.inf) -> None:
        largest, _ = FIGURES.get(what, (measured, tolerance))
        FIGURES[what] = (max(largest, measured), tolerance)
        assert measured <= tolerance, f"{what}: {measured:.2g}, allowed are {tolerance:.2g}"

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not FIGURES:
        return
    width = max(map(len, FIGURES))
    terminalreporter.section("parity")
    terminalreporter.line(f"{'':{width}}   largest  tolerance")
    for what, (measured, tolerance) in FIGURES.items():
        allowed = "" if tolerance == math.inf else f"{tolerance:.1e}"
        terminalreporter.line(f"{what:{width}}  {measured:8.1e}  {allowed:>9}".rstrip())


@dataclass(frozen=True)
class Outputs:
    """What a model says of a batch, by transformers' names.

    Attributes:
        logits: B×Q×(K+1).
        pred_boxes: B×Q×4, centre and size relative to the image.
        pred_masks: B×Q×H/4×W/4 logits; None for a bare detector.
    """

    logits: torch.Tensor
    pred_boxes: torch.Tensor
    pred_masks: torch.Tensor | None = None

    def of_image(self, i: int) -> Outputs:
        """What it says of image i, as of a batch of one."""
        return Outputs(*(None if x is None else x[i, None] for x in vars(self).values()))

    def differences(self, other: Outputs) -> dict[str, float]:
        """The largest difference of each kind of output."""
        found = {}
        for kind, outputs in vars(self).items():
            others = getattr(other, kind)
            if outputs is not None or others is not None:
                assert outputs.shape == others.shape
                found[kind.removeprefix("pred_")] = (outputs - others).abs().max().item()
        return found


@dataclass(frozen=True)
class Pair:
    """Two models with the same weights."""

    theirs: PreTrainedModel
    ours: DETR

    @staticmethod
    def inputs_of_theirs(images: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """What transformers makes of 3×H×W uint8 images.

        Returns:
            ``pixel_values``, B×3×H×W normalised, and ``pixel_mask``, B×H×W, 0 = padding.
        """
        from transformers import DetrImageProcessor

        return dict(DetrImageProcessor(do_resize=False)(list(images), return_tensors="pt"))

    @torch.no_grad()
    def run_theirs(self, images: Sequence[torch.Tensor]) -> Outputs:
        output = self.theirs(**self.inputs_of_theirs(images))
        return Outputs(output.logits, output.pred_boxes, getattr(output, "pred_masks", None))

    @torch.no_grad()
    def run_ours(self, images: Sequence[torch.Tensor]) -> Outputs:
        detected = self.ours.detector(self.ours.preprocess([{"image": x} for x in images]))
        logits, boxes = detected.logits[-1], detected.boxes_cxcywh[-1]
        if self.ours.mask_head is None:
            return Outputs(logits, boxes)
        batch_and_queries = logits.shape[:2]
        pairs = torch.cartesian_prod(*map(torch.arange, batch_and_queries))
        chunks = [self.ours.masks_of(detected, *p.T) for p in pairs.split(QUERIES_AT_ONCE)]
        return Outputs(logits, boxes, torch.cat(chunks).unflatten(0, batch_and_queries))


@pytest.fixture
def make_pair(tmp_path: Path) -> Callable[..., Pair]:
    """Makes a random model of transformers', saves it, and loads it as every checkpoint is loaded.

    ``make_pair(overrides, masks=True, attention_weight=5, **changes)`` takes changes to a tiny
    ``DetrConfig``, overrides of our config beside those that follow from it, and how much the mask
    head's first convolution makes of attention maps, which sum to one over all pixels: the larger
    the grid, the smaller their values.
    """
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    def make(
        overrides: dict | None = None,
        masks: bool = True,
        attention_weight: float = 5,
        **changes: object,
    ) -> Pair:
        if "backbone" in changes:
            pytest.importorskip("timm")
        else:
            changes = {"use_timm_backbone": False, "backbone_config": TINY_RESNET, **changes}
        config = transformers.DetrConfig(**{**TINY, **changes})
        kind = transformers.DetrForSegmentation if masks else transformers.DetrForObjectDetection
        torch.manual_seed(0)
        theirs = kind(config).eval()
        _randomise(theirs)
        if masks:
            theirs.mask_head.conv1.conv.weight.data[:, config.d_model :].normal_(
                std=attention_weight
            )
            _take_turns(theirs.mask_head)
        theirs.save_pretrained(tmp_path)
        ours = _build(config, {"MODEL.DETR.MASK_ON": masks, **(overrides or {})})
        StrictCheckpointer(ours).load(str(tmp_path))
        return Pair(theirs, ours)

    return make


@pytest.fixture
def make_images() -> Callable[..., list[torch.Tensor]]:
    """Random 3×H×W uint8 images of the given sizes, with structure at all scales."""

    def make(*sizes: tuple[int, int]) -> list[torch.Tensor]:
        rng = torch.Generator().manual_seed(0)
        images = []
        for size in sizes:
            grids = [[-(-side // step) for side in size] for step in (128, 32, 8, 2)]
            layers = [torch.randn(1, 3, *grid, generator=rng) for grid in grids]
            image = sum(F.interpolate(layer, size=size, mode="bilinear")[0] for layer in layers)
            images.append((128 + 45 * image).clamp(0, 255).to(torch.uint8))
        return images

    return make


def _build(config: DetrConfig, overrides: dict) -> DETR:
    """Our model of the sizes of theirs, with weights of its own."""
    backbone = config.backbone_config
    settings = {
        "MODEL.DEVICE": "cpu",
        "MODEL.WEIGHTS": "",
        "MODEL.RESNETS.RES5_DILATION": 2 if config.dilation else 1,
        "MODEL.DETR.NUM_CLASSES": config.num_labels,
        "MODEL.DETR.NUM_QUERIES": config.num_queries,
        "MODEL.DETR.HIDDEN_DIM": config.d_model,
        "MODEL.DETR.NUM_HEADS": config.encoder_attention_heads,
        "MODEL.DETR.ENC_LAYERS": config.encoder_layers,
        "MODEL.DETR.DEC_LAYERS": config.decoder_layers,
        "MODEL.DETR.DIM_FEEDFORWARD": config.encoder_ffn_dim,
        "MODEL.DETR.POSITION_EMBEDDING": config.position_embedding_type,
        "DATASETS.TRAIN": (),
        "DATASETS.TEST": (),
    }
    if backbone.model_type == "resnet":
        settings["MODEL.RESNETS.STEM_OUT_CHANNELS"] = backbone.embedding_size
        settings["MODEL.RESNETS.RES2_OUT_CHANNELS"] = backbone.hidden_sizes[0]
        settings["MODEL.RESNETS.WIDTH_PER_GROUP"] = backbone.hidden_sizes[0] // 4
    else:
        settings["MODEL.RESNETS.DEPTH"] = int(backbone.backbone.removeprefix("resnet"))
    flat = [item for pair in {**settings, **overrides}.items() for item in pair]
    cfg = load_config(config_file("detr_panoptic.yaml"), flat)
    torch.manual_seed(1)
    return DETR(cfg).eval()


@torch.no_grad()
def _randomise(model: PreTrainedModel) -> None:
    """Gives each tensor values of its own, such that a mistake anywhere shows in the outputs.

    As they start out, queries would hardly differ: attention would be the same mean everywhere.
    """
    for name, module in model.named_modules():
        if hasattr(module, "running_var"):  # batch norm
            module.weight.uniform_(0.4, 1.0)
            module.bias.uniform_(-0.2, 0.2)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
        elif isinstance(module, nn.LayerNorm | nn.GroupNorm):
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.2, 0.2)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            gain = 2.0 if isinstance(module, nn.Conv2d) else 1.0
            if name.endswith(("q_proj", "k_proj")):
                gain = 4.0
            elif name.endswith(("self_attn.v_proj", "self_attn.o_proj")):
                gain = 0.25
            module.weight.normal_(std=math.sqrt(gain / module.weight[0].numel()))
            if module.bias is not None:
                module.bias.uniform_(-0.2, 0.2)
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(std=3)


def _take_turns(mask_head: nn.Module) -> None:
    """Makes transformers' mask head work on a few queries at a time.

    For 100 at once it would need 13 GB. Nothing in it mixes queries, so that results are the same.
    """
    all_at_once = mask_head.forward

    def in_turns(
        features: torch.Tensor, attention_masks: torch.Tensor, fpn_features: list[torch.Tensor]
    ) -> torch.Tensor:
        parts = [
            all_at_once(features, part, fpn_features).unflatten(0, part.shape[:2])
            for part in attention_masks.split(QUERIES_AT_ONCE, dim=1)
        ]
        return torch.cat(parts, dim=1).flatten(0, 1)

    mask_head.forward = in_turns

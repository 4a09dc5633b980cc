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
from benchmarks.weights import TINY, load_ours, random_image, randomise
from torch import nn

from detr_d2.modeling import DETR

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Queries whose masks are computed at a time, to bound memory.
QUERIES_AT_ONCE = 4
# Changes to the tiny model of the benchmarks.
FEW = {"num_queries": 9, "num_labels": 6}


@pytest.fixture
def record_parity(record_figure: Callable[..., None]) -> Callable[..., None]:
    """Checks a difference, and shows the largest of its name at the end of the run.

    ``record_parity(what, measured, tolerance)``; without a tolerance it is only shown.
    """

    def record(what: str, measured: float, tolerance: float = math.inf) -> None:
        allowed = "" if tolerance == math.inf else f", allowed are {tolerance:.1e}"
        record_figure(f"parity, {what}", measured, f"{{:.1e}}{allowed}")
        assert measured <= tolerance, f"{what}: {measured:.2g}, allowed are {tolerance:.2g}"

    return record


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
        tiny = {**TINY, **FEW}
        if "backbone" in changes:
            pytest.importorskip("timm")
            del tiny["use_timm_backbone"], tiny["backbone_config"]
        config = transformers.DetrConfig(**{**tiny, **changes})
        kind = transformers.DetrForSegmentation if masks else transformers.DetrForObjectDetection
        torch.manual_seed(0)
        theirs = kind(config).eval()
        randomise(theirs, attention_weight)
        if masks:
            _take_turns(theirs.mask_head)
        theirs.save_pretrained(tmp_path)
        without_datasets = {"DATASETS.TRAIN": (), "DATASETS.TEST": ()}
        ours = load_ours(
            tmp_path, {**without_datasets, "MODEL.DETR.MASK_ON": masks, **(overrides or {})}
        )
        return Pair(theirs, ours)

    return make


@pytest.fixture
def make_images() -> Callable[..., list[torch.Tensor]]:
    """Random 3×H×W uint8 images of the given sizes, with structure at all scales."""

    def make(*sizes: tuple[int, int]) -> list[torch.Tensor]:
        rng = torch.Generator().manual_seed(0)
        return [random_image(size, rng) for size in sizes]

    return make


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

"""A training step of each stage beside transformers' DETR: the same weights, batch and losses.

Axes: B images, T targets of each, H×W an image.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from detectron2.structures import Instances
from torch import nn
from torchvision.ops import box_convert

from benchmarks.benchmark_report import BenchmarkReport
from benchmarks.benchmark_settings import BenchmarkSettings
from benchmarks.inference import measure_memory, measure_times
from benchmarks.subjects import Workload
from benchmarks.training import make_scene
from benchmarks.weights import random_image, save_random_weights

logger = logging.getLogger(__name__)

Stage = Literal["boxes", "masks"]
NUM_IMAGES = 2
NAMES = ("ours", "transformers")
# Our losses after the last decoder layer.
LAST_LAYER = ("loss_class", "loss_l1", "loss_giou", "loss_mask", "loss_dice")


def run_box_stage(settings: BenchmarkSettings, report: BenchmarkReport) -> None:
    """Measures a step that learns boxes and classes, and fills the report's "box_stage"."""
    _run_stage("boxes", settings, report)
    report.content["box_stage"]["note"] += (
        " With losses after every layer, transformers' decoder also norms what goes into the next "
        "layer, so that losses after the first one are others."
    )
    report.write()


def run_mask_stage(settings: BenchmarkSettings, report: BenchmarkReport) -> None:
    """Measures a step that learns masks alone, and fills the report's "mask_stage"."""
    _run_stage("masks", settings, report)


def _run_stage(stage: Stage, settings: BenchmarkSettings, report: BenchmarkReport) -> None:
    found = report.section("box_stage" if stage == "boxes" else "mask_stage")
    num_targets = settings.num_targets
    with TemporaryDirectory(prefix="detr_d2_benchmark_") as folder:
        save_random_weights(folder, settings.architecture, settings.trained_size, settings.seed)
        workload = Workload(folder, settings.trained_size, 0.0, settings.device, settings.seed)
        difference = difference_of_gradients(stage, workload, num_targets)
        steps = {name: prepare_peer_step(name, stage, workload, num_targets) for name in NAMES}
        measure_times(steps, settings, report, found.setdefault("seconds", {}))
        del steps
        measure_memory(
            NAMES, settings, report, found, prepare_peer_step, stage, workload, num_targets
        )
    height, width = settings.trained_size
    found["note"] = (
        f"{NUM_IMAGES} images of {height}×{width} with {num_targets} targets each. The norms of "
        f"all gradients of the last layer's losses differ by {difference:.1e} in all."
    )
    report.write()


def prepare_peer_step(
    name: str, stage: Stage, workload: Workload, num_targets: int
) -> Callable[[], float]:
    """Builds a step: forward, losses after every decoder layer, backward, and an update.

    Args:
        name: one of ``NAMES``.
        stage: what is learned.
        workload: weights, and the size of the images.
        num_targets: T.

    Returns:
        A function that takes a step, and returns the loss before the update.
    """
    model, losses = _subject(name, stage, workload, num_targets, auxiliary=True)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # As our trainer and transformers' have it.
    optimizer = torch.optim.AdamW(trained, lr=1e-5, weight_decay=1e-4, fused=True)

    def step() -> float:
        optimizer.zero_grad()
        loss = losses()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def difference_of_gradients(stage: Stage, workload: Workload, num_targets: int) -> float:
    """Compares the norms of all parameters' gradients, those of the last layer's losses.

    Returns:
        The norm of the differences, as a share of our norm.
    """
    norms = []
    for name in NAMES:
        model, losses = _subject(name, stage, workload, num_targets, auxiliary=False)
        losses().backward()
        gradients = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        norms.append(torch.stack(gradients).sort().values)
    ours, theirs = norms
    return ((ours - theirs).norm() / ours.norm()).item()


def _subject(
    name: str, stage: Stage, workload: Workload, num_targets: int, auxiliary: bool
) -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    """A model, and the sum of its losses on the batch: after every layer, or after the last."""
    of_masks = stage == "masks"
    ours = workload.load_ours(MASK_ON=of_masks, FREEZE_DETECTOR=of_masks, DROPOUT=0.0).train()
    generator = torch.Generator().manual_seed(workload.seed)
    images = [random_image(workload.size, generator) for _ in range(NUM_IMAGES)]
    scenes = [make_scene(workload.size, num_targets, workload.seed + i) for i in range(NUM_IMAGES)]
    if not of_masks:
        for scene in scenes:
            scene.remove("gt_masks")
    batch = [{"image": i, "instances": s} for i, s in zip(images, scenes, strict=True)]
    if name == "ours":
        return ours, lambda: sum(
            loss for key, loss in ours(batch).items() if auxiliary or key in LAST_LAYER
        )
    theirs = _load_theirs(stage, workload, auxiliary)
    pixels = ours.preprocess(batch).tensor
    labels = [_labels(scene, workload) for scene in scenes]
    return theirs, lambda: theirs(pixel_values=pixels, labels=labels).loss


def _load_theirs(stage: Stage, workload: Workload, auxiliary: bool) -> nn.Module:
    """Their model, with the same parts frozen as in ours and in the reference.

    These are stem and first stage while boxes are learned, and the whole detector afterwards.
    """
    from transformers import DetrForSegmentation

    whole = DetrForSegmentation.from_pretrained(
        workload.weights, dropout=0.0, auxiliary_loss=auxiliary
    ).to(workload.device)
    if stage == "masks":
        whole.detr.requires_grad_(False)
        return whole.train()
    backbone = whole.detr.model.backbone.model
    for frozen in (backbone.embedder, backbone.encoder.stages[0]):
        frozen.requires_grad_(False)
    return whole.detr.train()


def _labels(scene: Instances, workload: Workload) -> dict[str, torch.Tensor]:
    height, width = workload.size
    boxes = scene.gt_boxes.tensor / torch.tensor([width, height, width, height])
    labels = {
        "class_labels": scene.gt_classes,
        "boxes": box_convert(boxes, "xyxy", "cxcywh"),
    }
    if scene.has("gt_masks"):
        labels["masks"] = scene.gt_masks.tensor.float()
    return {name: values.to(workload.device) for name, values in labels.items()}

"""Measures a training step of the mask stage, with the detector frozen.

Axes: Q queries, T targets, L decoder layers, H×W the image.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.structures import BitMasks, Instances
from oracles.plain_panoptic import PlainPanoptic
from torchvision.ops import sigmoid_focal_loss

from benchmarks.benchmark_report import BenchmarkReport
from benchmarks.benchmark_settings import BenchmarkSettings
from benchmarks.inference import measure_memory, measure_times
from benchmarks.scenes import blob_labels
from benchmarks.subjects import PIXEL_HEAD, Workload
from benchmarks.weights import save_random_weights
from detr_d2.data.segment_masks import SegmentMasks
from detr_d2.modeling import DETR
from detr_d2.modeling.targets import Target

logger = logging.getLogger(__name__)

# As many points of each mask as Mask2Former compares.
NUM_POINTS = 12544
# Our steps by name, with their keys below MODEL.DETR. The others are compared with the first. The
# plain step is measured as well.
VARIANTS: dict[str, dict[str, object]] = {
    "matched queries": {},
    "matched, 4 at a time": {"MASK_HEAD__CHUNK_SIZE": 4},
    "matched, checkpointed": {"MASK_HEAD__CHECKPOINTING": True},
    "matched, checkpointed, 4 at a time": {
        "MASK_HEAD__CHECKPOINTING": True,
        "MASK_HEAD__CHUNK_SIZE": 4,
    },
    "pixel head": PIXEL_HEAD,
    "pixel head, points": {**PIXEL_HEAD, "LOSS__NUM_POINTS": NUM_POINTS},
}
PLAIN = "all queries, plain"


def run_training(settings: BenchmarkSettings, report: BenchmarkReport) -> None:
    """Measures time and memory of a step, and fills the report's section "training"."""
    found = report.section("training")
    names = [*VARIANTS, PLAIN]
    with TemporaryDirectory(prefix="detr_d2_benchmark_") as folder:
        logger.info("Making weights")
        save_random_weights(folder, settings.architecture, settings.size, settings.seed)
        workload = Workload(folder, settings.size, 0.0, settings.device, settings.seed)
        steps = {name: prepare_step(name, workload, settings.num_targets) for name in names}
        found["first_loss"] = {name: step() for name, step in steps.items()}
        for name, loss in found["first_loss"].items():
            logger.info("%s: loss %.6f before the first update", name, loss)
        measure_times(steps, settings, report, found.setdefault("seconds", {}))
        del steps
        measure_memory(names, settings, report, found, prepare_step, workload, settings.num_targets)


def prepare_step(name: str, workload: Workload, num_targets: int) -> Callable[[], float]:
    """Builds a training step on one image: forward, backward, and an update of the mask head.

    Args:
        name: a key of ``VARIANTS``, or ``PLAIN``.
        workload: weights and image.
        num_targets: T, things and stuff together.

    Returns:
        A function that takes a step, and returns the mask losses before the update.
    """
    model = workload.load_ours(FREEZE_DETECTOR=True, **VARIANTS.get(name, {})).train()
    instances = make_scene(workload.size, num_targets, workload.seed)
    batch = [{"image": workload.image(), "instances": instances}]
    if name == PLAIN:
        plain = PlainPanoptic(model)
        instances.gt_masks = BitMasks(instances.gt_masks.tensor)
        head = plain.mask_head
        losses = lambda: plain_mask_losses(plain, model, batch)  # noqa: E731
    else:
        head = model.mask_head
        losses = lambda: model(batch)  # noqa: E731
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-4, weight_decay=1e-4)

    def step() -> float:
        optimizer.zero_grad()
        loss = sum(losses().values())
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def plain_mask_losses(
    plain: PlainPanoptic, model: DETR, batch: list[dict]
) -> dict[str, torch.Tensor]:
    """Computes the losses of the mask stage as the released code does, on a batch of one image.

    The detector's losses are computed after every layer although nothing learns from them, and the
    masks of all queries although only matched ones count. Losses are computed in whole tensors.
    """
    image, instances = batch[0]["image"], batch[0]["instances"].to(model.device)
    targets = [Target.from_instances(instances, with_masks=True)]
    criterion, weights = model.criterion, model.criterion.weights
    with torch.no_grad():
        detection = plain.detect(plain.normalise(image))
        for hidden in detection.hidden:
            logits = plain.detector_parts["class_head"](hidden)[None]
            boxes = plain.detector_parts["box_head"](hidden)[None].sigmoid()
            (matches,) = criterion.match(logits[None], boxes[None], targets)
            criterion.detection_losses(logits, boxes, targets, matches, len(instances))
    masks = plain.masks_from(detection, plain.attention_maps(detection))  # Q×H/4×W/4
    masks = masks[matches.query_index][:, None]
    masks = F.interpolate(masks, size=image.shape[-2:], mode="bilinear")[:, 0].flatten(1)
    wanted = instances.gt_masks.tensor[matches.target_index].flatten(1).float()  # T×HW
    focal = sigmoid_focal_loss(masks, wanted, weights.focal_alpha, weights.focal_gamma)
    probabilities = masks.sigmoid()
    shared = 2 * (probabilities * wanted).sum(1)
    dice = 1 - (shared + 1) / (probabilities.sum(1) + wanted.sum(1) + 1)
    return {
        "loss_mask": weights.mask_weight * focal.mean(1).sum() / len(instances),
        "loss_dice": weights.dice_weight * dice.sum() / len(instances),
    }


def make_scene(size: tuple[int, int], num_targets: int, seed: int) -> Instances:
    """Makes T segments that cover an image of H×W, in the format of our mapper."""
    rng = np.random.default_rng(seed)
    (labels,) = blob_labels(size, num_targets, rng, jitters=(0.0,))
    label_map = torch.from_numpy(labels + 1).to(torch.uint8)
    instances = Instances(size)
    instances.gt_masks = SegmentMasks(label_map, label_map.unique())
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    instances.gt_classes = torch.from_numpy(rng.integers(0, 133, len(instances.gt_masks)))
    return instances

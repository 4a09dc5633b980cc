"""Matching and losses against transformers' own, on predictions of random and of whole models."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from torchvision.ops import box_convert

from detr_d2.modeling.criterion import (
    LossWeights,
    SetCriterion,
    count_targets,
    detection_metrics,
)
from detr_d2.modeling.matcher import HungarianMatcher
from detr_d2.modeling.targets import Target

TOLERANCE = 1e-5
NUM_CLASSES, QUERIES, CPU = 6, 9, torch.device("cpu")
WEIGHTS = LossWeights(
    class_weight=1.0,
    l1_weight=5.0,
    giou_weight=2.0,
    mask_weight=1.0,
    dice_weight=1.0,
    no_object_weight=0.1,
    focal_alpha=0.25,
    focal_gamma=2.0,
    num_points=0,
)
# Ours → theirs, and what ours are multiplied by already.
NAMES = {
    "loss_class": ("loss_ce", WEIGHTS.class_weight),
    "loss_l1": ("loss_bbox", WEIGHTS.l1_weight),
    "loss_giou": ("loss_giou", WEIGHTS.giou_weight),
    "loss_mask": ("loss_mask", WEIGHTS.mask_weight),
    "loss_dice": ("loss_dice", WEIGHTS.dice_weight),
}
# Sizes of the images of a batch, which is padded to 64×80.
SIZES = [(64, 72), (50, 80), (40, 44)]
COUNTS = pytest.mark.parametrize(
    "counts", [(3, 2, 4), (0, 5, 0), (1,), (QUERIES + 3, 1)], ids=lambda c: "-".join(map(str, c))
)


@pytest.fixture
def theirs():
    return pytest.importorskip("transformers.loss.loss_for_object_detection")


def make_criterion() -> SetCriterion:
    return SetCriterion(HungarianMatcher(cost_class=1.0, cost_l1=5.0, cost_giou=2.0), WEIGHTS)


def random_boxes(*shape: int) -> torch.Tensor:
    """(cx, cy, w, h) within the image."""
    size = torch.rand(*shape, 2) * 0.9 + 0.05
    return torch.cat([size / 2 + torch.rand(*shape, 2) * (1 - size), size], dim=-1)


def random_targets(counts: tuple[int, ...], seed: int = 0) -> list[Target]:
    """As many targets in each image as ``counts`` says; masks have nothing to do with boxes."""
    torch.manual_seed(seed)
    return [
        Target(torch.randint(NUM_CLASSES, (n,)), random_boxes(n), torch.rand(n, *size) > 0.6)
        for n, size in zip(counts, SIZES, strict=False)
    ]


def labels_of(targets: list[Target]) -> list[dict[str, torch.Tensor]]:
    """Targets as transformers takes them."""
    return [
        {"class_labels": t.classes, "boxes": t.boxes_cxcywh, "masks": t.masks.float()}
        for t in targets
    ]


def padded_size(num_images: int) -> tuple[int, int]:
    return tuple(map(max, zip(*SIZES[:num_images], strict=True)))


def random_predictions(num_images: int) -> dict[str, torch.Tensor]:
    """As transformers takes them; all ask for gradients."""
    height, width = padded_size(num_images)
    predictions = {
        "logits": 2 * torch.randn(num_images, QUERIES, NUM_CLASSES + 1),
        "pred_boxes": random_boxes(num_images, QUERIES),
        "pred_masks": 3 * torch.randn(num_images, QUERIES, height // 4, width // 4),
    }
    return {name: prediction.requires_grad_() for name, prediction in predictions.items()}


def test_every_query_is_matched_to_the_same_target(theirs, record_parity):
    ours = HungarianMatcher(cost_class=1.0, cost_l1=5.0, cost_giou=2.0)
    reference = theirs.HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    total = differing = 0
    for seed in range(100):
        targets = random_targets([(4, 1, 7), (0, 2, 0), (1,), (QUERIES + 3, 5)][seed % 4], seed)
        predictions = random_predictions(len(targets))
        expected = reference(predictions, labels_of(targets))
        (actual,) = ours(predictions["logits"][None], predictions["pred_boxes"][None], targets)
        for pairs, expected_pairs in zip(actual, expected, strict=True):
            pairs, expected_pairs = torch.stack(pairs), torch.stack(expected_pairs)
            assert pairs.shape == expected_pairs.shape
            total += pairs.shape[1]
            differing += (pairs != expected_pairs).any(0).sum().item()
    assert total > 500
    record_parity("pairs matched otherwise", differing, 0)


@COUNTS
def test_criterion_and_its_gradients(theirs, record_parity, counts):
    """Both divide by the number of targets, at least 1, and compare masks at the padded size."""
    targets = random_targets(counts)
    predictions = random_predictions(len(counts))
    logits, boxes, all_masks = predictions.values()
    criterion, num_targets = make_criterion(), count_targets(targets, CPU)
    (matches,) = criterion.match(logits[None], boxes[None], targets)
    losses = criterion.detection_losses(logits, boxes, targets, matches, num_targets)
    chosen = all_masks[matches.image_index, matches.query_index]
    losses.update(
        criterion.mask_losses(chosen, targets, matches, num_targets, padded_size(len(counts)))
    )

    matcher = theirs.HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    parts = ["labels", "boxes", "masks", "cardinality"]
    reference = theirs.ImageLoss(matcher, NUM_CLASSES, WEIGHTS.no_object_weight, parts)
    expected = reference(predictions, labels_of(targets))
    assert set(losses) == set(NAMES)
    total = expected_total = 0.0
    for name, (their_name, weight) in NAMES.items():
        difference = (losses[name] - weight * expected[their_name]).abs().item()
        record_parity("each loss on random predictions", difference, TOLERANCE)
        total, expected_total = total + losses[name], expected_total + weight * expected[their_name]
    inputs = list(predictions.values())
    gradients = torch.autograd.grad(total, inputs)
    for ours, reference in zip(gradients, torch.autograd.grad(expected_total, inputs), strict=True):
        assert reference.any()
        difference = (ours - reference).abs().max().item()
        record_parity("gradient of their sum on predictions", difference, TOLERANCE)
    metrics = detection_metrics(logits, targets, matches)
    assert metrics["cardinality_error"] == pytest.approx(expected["cardinality_error"].item())


def test_batch_without_any_target(theirs, record_parity):
    """Without masks: transformers' interpolation refuses an empty batch of them. Ours cost 0."""
    targets, predictions = random_targets((0, 0)), random_predictions(2)
    logits, boxes, all_masks = predictions.values()
    criterion = make_criterion()
    (matches,) = criterion.match(logits[None], boxes[None], targets)
    losses = criterion.detection_losses(
        logits, boxes, targets, matches, count_targets(targets, CPU)
    )
    matcher = theirs.HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    reference = theirs.ImageLoss(matcher, NUM_CLASSES, 0.1, ["labels", "boxes"])
    expected = reference(predictions, labels_of(targets))
    for name, loss in losses.items():
        their_name, weight = NAMES[name]
        difference = (loss - weight * expected[their_name]).abs().item()
        record_parity("each loss on random predictions", difference, TOLERANCE)
    masks = criterion.mask_losses(all_masks[0, :0], targets, matches, 1.0, padded_size(2))
    assert [loss.item() for loss in masks.values()] == [0, 0]


def as_instances(target: Target) -> Instances:
    height, width = target.masks.shape[1:]
    instances = Instances((height, width))
    boxes = box_convert(target.boxes_cxcywh, "cxcywh", "xyxy")
    instances.gt_boxes = Boxes(boxes * torch.tensor([width, height, width, height]))
    instances.gt_classes = target.classes
    instances.gt_masks = BitMasks(target.masks)
    return instances


@pytest.mark.parametrize("aux_loss", [False, True], ids=["last layer", "all layers"])
@COUNTS
def test_losses_of_whole_models(
    theirs, make_pair, make_images, record_parity, monkeypatch, counts, aux_loss
):
    pair = make_pair({"MODEL.DETR.AUX_LOSS": aux_loss}, decoder_layers=3)
    targets, images = random_targets(counts), make_images(*SIZES[: len(counts)])
    batch = [
        {"image": image, "instances": as_instances(target)}
        for image, target in zip(images, targets, strict=True)
    ]
    losses = pair.ours.losses(batch)

    # Whoever wants auxiliary losses of transformers gets another model: its decoder then feeds the
    # normalised output of a layer to the next, which the reference only predicts from. So its
    # model runs without, and its losses get what its heads say of each layer's normalised output.
    decoder, hidden = pair.theirs.detr.model.decoder, []
    for layer in decoder.layers:
        layer.register_forward_hook(lambda _module, _args, output: hidden.append(output))
    output = pair.theirs(**pair.inputs_of_theirs(images))
    hidden = decoder.layernorm(torch.stack(hidden))
    config = copy.deepcopy(pair.theirs.config)
    config.auxiliary_loss = aux_loss
    expected_total, expected, _ = theirs.ForSegmentationLoss(
        output.logits,
        labels_of(targets),
        CPU,
        output.pred_boxes,
        output.pred_masks,
        config,
        pair.theirs.detr.class_labels_classifier(hidden),
        pair.theirs.detr.bbox_predictor(hidden).sigmoid(),
    )
    layers = ["", "_0", "_1"] if aux_loss else [""]
    for layer in layers:
        for name, (their_name, weight) in NAMES.items():
            if layer == "" or name not in ("loss_mask", "loss_dice"):
                difference = (losses[name + layer] - weight * expected[their_name + layer]).abs()
                record_parity("each loss of whole models", difference.item(), TOLERANCE)
    assert len(losses) == 5 + 3 * (len(layers) - 1)
    difference = (sum(losses.values()) - expected_total).abs() / expected_total
    record_parity("sum of the losses of whole models (relative)", difference.item(), TOLERANCE)

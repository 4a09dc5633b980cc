"""The criterion: what is matched, compared, divided and weighted."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from detr_d2.data.segment_masks import SegmentMasks
from detr_d2.modeling.criterion import (
    LossWeights,
    Matches,
    SetCriterion,
    count_targets,
    detection_metrics,
)
from detr_d2.modeling.losses import box_losses, class_loss, dice_loss, mask_focal_loss
from detr_d2.modeling.matcher import HungarianMatcher
from detr_d2.modeling.targets import Target

NUM_CLASSES, QUERIES, CPU = 6, 7, torch.device("cpu")
UNWEIGHTED = LossWeights(
    class_weight=1.0,
    l1_weight=1.0,
    giou_weight=1.0,
    mask_weight=1.0,
    dice_weight=1.0,
    no_object_weight=0.1,
    focal_alpha=0.25,
    focal_gamma=2.0,
    num_points=0,
)


def make_criterion(weights: LossWeights = UNWEIGHTED) -> SetCriterion:
    return SetCriterion(HungarianMatcher(cost_class=1.0, cost_l1=5.0, cost_giou=2.0), weights)


def predictions(num_images: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and boxes that ask for gradients."""
    torch.manual_seed(seed)
    logits = torch.randn(num_images, QUERIES, NUM_CLASSES + 1, requires_grad=True)
    boxes = torch.rand(num_images, QUERIES, 4) * 0.4 + 0.3
    return logits, boxes.requires_grad_()


def made_up_case() -> tuple[list[Target], Matches]:
    """Two targets in the first image, none in the second, one in the third; matched crosswise."""
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.3, 0.3, 0.1, 0.1], [0.6, 0.4, 0.5, 0.5]])
    targets = [
        Target(torch.tensor([3, 1]), boxes[:2]),
        Target(torch.zeros(0, dtype=torch.int64), boxes[:0]),
        Target(torch.tensor([5]), boxes[2:]),
    ]
    index = ([0, 0, 2], [2, 4, 0], [1, 0, 0])
    return targets, Matches(*map(torch.tensor, index), counts=(2, 0, 1))


def test_detection_losses_compare_each_query_with_its_target():
    logits, boxes = predictions(3)
    targets, matches = made_up_case()
    losses = make_criterion().detection_losses(logits, boxes, targets, matches, num_targets=3)
    classes = torch.full((3, QUERIES), NUM_CLASSES)
    classes[0, 2], classes[0, 4], classes[2, 0] = 1, 3, 5
    chosen = torch.stack([boxes[0, 2], boxes[0, 4], boxes[2, 0]])
    wanted = torch.stack([*targets[0].boxes_cxcywh.flip(0), targets[2].boxes_cxcywh[0]])
    l1, giou = box_losses(chosen, wanted, 3)
    expected = {"loss_class": class_loss(logits, classes, 0.1), "loss_l1": l1, "loss_giou": giou}
    assert list(losses) == list(expected)
    for key, loss in expected.items():
        torch.testing.assert_close(losses[key], loss, rtol=1e-6, atol=1e-6)


def test_box_losses_pull_matched_queries_alone():
    logits, boxes = predictions(3)
    targets, matches = made_up_case()
    losses = make_criterion().detection_losses(logits, boxes, targets, matches, num_targets=3)
    (losses["loss_l1"] + losses["loss_giou"]).backward()
    pulled = boxes.grad.abs().amax(2).nonzero().tolist()
    assert pulled == [[0, 2], [0, 4], [2, 0]]


def test_mask_losses_compare_at_the_padded_size(make_targets):
    """Two images of different sizes, padded to 40×48, masks predicted at 10×12."""
    targets = make_targets(2, size=(40, 36)) + make_targets(3, size=(30, 48), seed=9)
    index = ([0, 0, 1, 1], [0, 3, 1, 2], [1, 0, 2, 0])
    matches = Matches(*map(torch.tensor, index), counts=(2, 2))
    torch.manual_seed(0)
    mask_logits = torch.randn(4, 10, 12)
    losses = make_criterion().mask_losses(mask_logits, targets, matches, 4, (40, 48))
    truth = torch.zeros(4, 40, 48, dtype=torch.bool)
    truth[0, :40, :36], truth[1, :40, :36] = targets[0].masks[1], targets[0].masks[0]
    truth[2, :30, :48], truth[3, :30, :48] = targets[1].masks[2], targets[1].masks[0]
    upsampled = F.interpolate(
        mask_logits[None], size=(40, 48), mode="bilinear", align_corners=False
    )[0]
    torch.testing.assert_close(
        losses["loss_mask"], mask_focal_loss(upsampled, truth, 4, 0.25, 2.0), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(
        losses["loss_dice"], dice_loss(upsampled, truth, 4), rtol=1e-6, atol=1e-6
    )


def packed(masks: torch.Tensor) -> SegmentMasks:
    """T×H×W bool as one label map; later masks lie above earlier ones."""
    label_map = torch.zeros(masks.shape[1:], dtype=torch.uint8)
    for label, mask in enumerate(masks, start=1):
        label_map[mask] = label
    return SegmentMasks(label_map, torch.arange(1, len(masks) + 1))


def random_matches(*counts: int, num_matched: int) -> Matches:
    """Of each image so many targets, in any order, or all where it has fewer."""
    chosen = [torch.randperm(count)[:num_matched] for count in counts]
    pairs = [(torch.arange(len(index)), index) for index in chosen]
    return Matches.of_layers([pairs], CPU)[0]


@pytest.mark.parametrize("num_matched", [1, 2, 5])
def test_mask_losses_of_label_maps_are_those_of_separate_masks(make_targets, num_matched):
    """Also where an image has no target, or more than are matched."""
    torch.manual_seed(0)
    sizes = [(40, 36), (30, 48), (8, 8), (33, 41)]
    targets = [make_targets(n, size=s)[0] for n, s in zip((3, 5, 0, 1), sizes, strict=True)]
    matches = random_matches(3, 5, 0, 1, num_matched=num_matched)
    as_maps = [dataclasses.replace(t, masks=packed(t.masks)) for t in targets]
    separate = [dataclasses.replace(t, masks=t.masks.tensor) for t in as_maps]
    mixed = [*as_maps[:2], *separate[2:]]
    logits = torch.randn(len(matches), 10, 12)
    losses = [
        make_criterion().mask_losses(logits, some, matches, 4, (40, 48))
        for some in (separate, as_maps, mixed)
    ]
    assert losses[0] == losses[1] == losses[2]


def test_no_masks_are_made_but_those_of_matched_targets(record_operations):
    """Of 50 targets, 2 are matched: nothing is made that is larger than their two masks."""
    label_map = torch.randint(51, (30, 40), generator=torch.Generator().manual_seed(0))
    masks = SegmentMasks(label_map.byte(), torch.arange(1, 51))
    target = Target(torch.zeros(50, dtype=torch.int64), torch.rand(50, 4), masks)
    matches = random_matches(50, num_matched=2)
    logits = torch.randn(2, 8, 10, requires_grad=True)
    with record_operations() as operations:
        losses = make_criterion().mask_losses(logits, [target], matches, 1, (32, 40))
        sum(losses.values()).backward()
    assert operations.largest() == 2 * 32 * 40


@pytest.mark.parametrize("mask_on", [True, False])
def test_no_stack_of_masks_is_made_in_training(tiny_model, make_batch, monkeypatch, mask_on):
    batch = make_batch((40, 50), (48, 36), num_targets=4)
    for x in batch:
        x["instances"].gt_masks = packed(x["instances"].gt_masks.tensor)
    monkeypatch.setattr(SegmentMasks, "tensor", property(lambda masks: pytest.fail("a stack")))
    if not mask_on:
        monkeypatch.setattr(SegmentMasks, "write_to", lambda *_: pytest.fail("masks"))
    losses = tiny_model({"MODEL.DETR.MASK_ON": mask_on})(batch)
    assert ("loss_dice" in losses) == mask_on


def test_mask_losses_are_computed_in_single_precision_under_autocast(make_targets):
    targets, matches = make_targets(2, 3), random_matches(2, 3, num_matched=3)
    torch.manual_seed(0)
    # Numbers that bfloat16 has, so that what differs would be computed in it.
    logits = torch.randn(len(matches), 8, 10).bfloat16()
    results = []
    for enabled in (False, True):
        ours = (logits if enabled else logits.float()).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses = make_criterion().mask_losses(ours, targets, matches, 5, (32, 40))
        assert {loss.dtype for loss in losses.values()} == {torch.float32}
        (gradient,) = torch.autograd.grad(sum(losses.values()), ours)
        results.append((losses, gradient.bfloat16()))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_weights_multiply_their_own_loss(make_targets):
    logits, boxes = predictions(2)
    targets = make_targets(2, 3)
    factors = {"class_weight": 2.0, "l1_weight": 3.0, "giou_weight": 5.0}
    weights = dataclasses.replace(UNWEIGHTED, **factors, mask_weight=7.0, dice_weight=11.0)
    results = []
    for criterion in (make_criterion(UNWEIGHTED), make_criterion(weights)):
        (matches,) = criterion.match(logits[None], boxes[None], targets)
        torch.manual_seed(0)
        masks = torch.randn(len(matches), 8, 10)
        losses = criterion.detection_losses(logits, boxes, targets, matches, 5)
        losses.update(criterion.mask_losses(masks, targets, matches, 5, (32, 40)))
        results.append(losses)
    factors = {key: (results[1][key] / loss).item() for key, loss in results[0].items()}
    assert factors == pytest.approx(
        {"loss_class": 2, "loss_l1": 3, "loss_giou": 5, "loss_mask": 7, "loss_dice": 11}, rel=1e-5
    )


def test_no_targets_leave_the_class_loss_alone(make_targets):
    logits, boxes = predictions(2)
    targets = make_targets(0, 0)
    criterion = make_criterion()
    (matches,) = criterion.match(logits[None], boxes[None], targets)
    mask_logits = torch.zeros(0, 8, 10, requires_grad=True)
    losses = criterion.detection_losses(logits, boxes, targets, matches, 1.0)
    losses.update(criterion.mask_losses(mask_logits, targets, matches, 1.0, (32, 40)))
    assert {
        key: loss.item() for key, loss in losses.items() if key != "loss_class"
    } == dict.fromkeys(["loss_l1", "loss_giou", "loss_mask", "loss_dice"], 0.0)
    expected = -logits.log_softmax(-1)[..., NUM_CLASSES].mean()
    torch.testing.assert_close(losses["loss_class"], expected, rtol=1e-5, atol=1e-6)
    sum(losses.values()).backward()
    assert not boxes.grad.any()
    assert logits.grad.any()
    assert mask_logits.grad is not None


def test_mask_gradients_reach_matched_queries_alone(make_targets):
    logits, boxes = predictions(2)
    targets = make_targets(2, 3)
    criterion = make_criterion()
    (matches,) = criterion.match(logits[None], boxes[None], targets)
    torch.manual_seed(0)
    all_masks = torch.randn(2, QUERIES, 8, 10, requires_grad=True)
    chosen = all_masks[matches.image_index, matches.query_index]
    sum(criterion.mask_losses(chosen, targets, matches, 5, (32, 40)).values()).backward()
    matched = torch.zeros(2, QUERIES, dtype=torch.bool)
    matched[matches.image_index, matches.query_index] = True
    assert matched.sum() == 5
    assert torch.equal(all_masks.grad.flatten(2).any(2), matched)


def test_divisor_is_the_number_of_targets_but_at_least_one(make_targets):
    assert count_targets(make_targets(2, 0, 3), CPU) == 5
    assert count_targets(make_targets(0, 0), CPU) == 1


@pytest.mark.parametrize(("elsewhere", "expected"), [(2, 3.5), (8, 6.5), (0, 2.5)])
def test_divisor_is_averaged_over_processes(monkeypatch, make_targets, elsewhere, expected):
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.add_(elsewhere))
    assert count_targets(make_targets(2, 3), CPU) == expected


def test_parts_of_a_batch_add_up_to_the_whole(make_targets):
    """By the divisors of the whole, which are known before anything is predicted."""
    targets = make_targets(2, 0, QUERIES + 3)
    criterion, device = make_criterion(), CPU
    divisors = criterion.divisors(targets, QUERIES, device)
    assert divisors.num_targets == QUERIES + 5
    # Of three images, one has too many targets.
    assert divisors.class_weight == pytest.approx(2 + QUERIES + 0.1 * (2 * QUERIES - 2))
    logits, boxes = predictions(3)

    def losses(chosen: slice, *divisor: float) -> torch.Tensor:
        images = logits[chosen], boxes[chosen], targets[chosen]
        (matches,) = criterion.match(logits[None, chosen], boxes[None, chosen], targets[chosen])
        return torch.stack([*criterion.detection_losses(*images, matches, *divisor).values()])

    whole = losses(slice(3), count_targets(targets, device))
    of_whole = (divisors.num_targets, divisors.class_weight)
    parts = sum(losses(slice(i, i + 1), *of_whole) for i in range(3))
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-6)


def test_where_no_query_counts_the_class_loss_is_zero(make_targets):
    criterion = make_criterion(dataclasses.replace(UNWEIGHTED, no_object_weight=0.0))
    assert criterion.divisors(make_targets(0, 0), QUERIES, CPU).class_weight == 1


def test_metrics_of_a_made_up_case():
    targets, matches = made_up_case()
    logits = torch.zeros(3, QUERIES, NUM_CLASSES + 1)
    logits[..., NUM_CLASSES] = 1.0  # "no object", but for:
    logits[0, 2, 1] = logits[2, 0, 4] = logits[2, 1, 2] = 2.0
    # Query 2 of image 0 is right; query 4 says "no object", query 0 of image 2 says 4 and not 5.
    # Predicted 1, 0 and 2 objects where there are 2, 0 and 1.
    metrics = detection_metrics(logits, targets, matches)
    assert metrics == pytest.approx({"class_error": 200 / 3, "cardinality_error": 2 / 3}, abs=1e-4)


def test_metrics_of_nothing(make_targets):
    logits, boxes = predictions(2)
    targets = make_targets(0, 0)
    (matches,) = make_criterion().match(logits[None], boxes[None], targets)
    assert detection_metrics(logits, targets, matches)["class_error"] == 0


@pytest.mark.parametrize("with_storage", [False, True])
def test_metrics_go_to_the_event_storage_and_not_into_the_losses(
    tiny_model, make_batch, with_storage
):
    model, batch = tiny_model(), make_batch((40, 50))
    if not with_storage:
        assert not any("error" in key for key in model(batch))
        return
    with EventStorage() as storage:
        losses = model(batch)
        assert not any("error" in key for key in losses)
        assert {"metrics/class_error", "metrics/cardinality_error"} == set(storage.latest())

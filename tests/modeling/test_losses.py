"""Each loss against its formula. Parity with transformers is shown in tests/parity."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from detr_d2.modeling.losses import box_losses, class_loss, dice_loss, mask_focal_loss

NUM_TARGETS = 2.5


def random_masks() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return 3 * torch.randn(4, 5, 6, requires_grad=True), (torch.rand(4, 5, 6) > 0.6).float()


def random_boxes() -> tuple[torch.Tensor, torch.Tensor]:
    """4×4 each; the last pair does not overlap."""
    torch.manual_seed(0)
    boxes = torch.rand(2, 4, 4) * 0.4 + 0.3
    boxes[0, 3], boxes[1, 3] = (
        torch.tensor([0.1, 0.1, 0.1, 0.1]),
        torch.tensor([0.8, 0.7, 0.2, 0.3]),
    )
    return boxes[0], boxes[1]


def test_class_loss_is_a_mean_over_weights():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 5), torch.tensor([[4, 0, 4], [2, 4, 4]])
    total = weights = 0.0
    for b in range(2):
        for q in range(3):
            weight = 0.1 if target[b, q] == 4 else 1.0
            total -= weight * logits[b, q].log_softmax(-1)[target[b, q]].item()
            weights += weight
    assert class_loss(logits, target, 0.1).item() == pytest.approx(total / weights, abs=1e-5)


def test_box_losses_equal_their_formulas():
    predicted, target = random_boxes()
    l1 = giou = 0.0
    for a, b in zip(predicted.tolist(), target.tolist(), strict=True):
        l1 += sum(abs(x - y) for x, y in zip(a, b, strict=True))
        (ax0, ax1), (bx0, bx1) = ((box[0] - box[2] / 2, box[0] + box[2] / 2) for box in (a, b))
        (ay0, ay1), (by0, by1) = ((box[1] - box[3] / 2, box[1] + box[3] / 2) for box in (a, b))
        overlap = max(0, min(ax1, bx1) - max(ax0, bx0)) * max(0, min(ay1, by1) - max(ay0, by0))
        union = a[2] * a[3] + b[2] * b[3] - overlap
        hull = (max(ax1, bx1) - min(ax0, bx0)) * (max(ay1, by1) - min(ay0, by0))
        giou += 1 - (overlap / union - (hull - union) / hull)
    actual = [loss.item() for loss in box_losses(predicted, target, NUM_TARGETS)]
    assert actual == pytest.approx([l1 / NUM_TARGETS, giou / NUM_TARGETS], abs=1e-5)


def test_equal_boxes_cost_nothing():
    boxes, _ = random_boxes()
    assert [loss.item() for loss in box_losses(boxes, boxes, 1)] == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 1.0), (0.75, 0.0)])
def test_focal_loss_equals_its_formula(alpha, gamma):
    logits, target = random_masks()
    total = 0.0
    for mask, truth in zip(logits.flatten(1).tolist(), target.flatten(1).tolist(), strict=True):
        pixels = 0.0
        for logit, inside in zip(mask, truth, strict=True):
            p = 1 / (1 + math.exp(-logit))
            p_t, alpha_t = (p, alpha) if inside else (1 - p, 1 - alpha)
            pixels -= alpha_t * (1 - p_t) ** gamma * math.log(p_t)
        total += pixels / len(mask)
    actual = mask_focal_loss(logits, target, NUM_TARGETS, alpha, gamma)
    assert actual.item() == pytest.approx(total / NUM_TARGETS, abs=1e-5)


def test_dice_loss_equals_its_formula():
    logits, target = random_masks()
    total = 0.0
    for mask, truth in zip(logits.flatten(1).tolist(), target.flatten(1).tolist(), strict=True):
        p = [1 / (1 + math.exp(-logit)) for logit in mask]
        intersection = sum(a * b for a, b in zip(p, truth, strict=True))
        total += 1 - (2 * intersection + 1) / (sum(p) + sum(truth) + 1)
    actual = dice_loss(logits, target, NUM_TARGETS)
    assert actual.item() == pytest.approx(total / NUM_TARGETS, abs=1e-5)


def test_perfect_masks_cost_nothing():
    _, target = random_masks()
    logits = 100 * (2 * target - 1)
    assert dice_loss(logits, target, 1).item() == pytest.approx(0, abs=1e-5)
    assert mask_focal_loss(logits, target, 1, 0.25, 2.0).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    "mask_loss",
    [dice_loss, lambda *args: mask_focal_loss(*args, alpha=0.25, gamma=2.0)],
    ids=["dice", "focal"],
)
def test_no_masks_cost_exactly_nothing(mask_loss):
    logits = torch.zeros(0, 5, 6, requires_grad=True)
    loss = mask_loss(logits, torch.zeros(0, 5, 6), 1.0)
    assert loss.item() == 0
    loss.backward()
    assert logits.grad.shape == logits.shape


def test_no_boxes_cost_exactly_nothing():
    boxes = torch.zeros(0, 4, requires_grad=True)
    losses = box_losses(boxes, torch.zeros(0, 4), 1.0)
    assert [loss.item() for loss in losses] == [0, 0]
    sum(losses).backward()
    assert boxes.grad.shape == boxes.shape


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[[-1e4, 1e4, 0.0]]], requires_grad=True)
    target = torch.tensor([[[1.0, 0.0, 1.0]]])
    (mask_focal_loss(logits, target, 1, 0.25, 2.0) + dice_loss(logits, target, 1)).backward()
    assert logits.grad.isfinite().all()


def test_class_loss_equals_torchs_with_weights():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 7, 5), torch.randint(5, (2, 7))
    weight = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.3])
    expected = F.cross_entropy(logits.mT, target, weight)
    torch.testing.assert_close(class_loss(logits, target, 0.3), expected, rtol=1e-5, atol=1e-6)

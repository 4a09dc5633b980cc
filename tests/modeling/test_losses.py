"""Each loss against its formula. Parity with transformers is shown in tests/parity."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_convert, generalized_box_iou, sigmoid_focal_loss

from detr_d2.modeling.losses import box_losses, class_loss, dice_loss, mask_focal_loss

NUM_TARGETS = 2.5


def random_masks() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return 3 * torch.randn(4, 5, 6, requires_grad=True), torch.rand(4, 5, 6) > 0.6


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


@pytest.mark.parametrize("scale", [1.0, 1 / 10_000])  # the smallest boxes are a pixel or less
def test_giou_and_its_gradient_are_those_of_all_pairs(scale):
    predicted, target = (boxes * scale for boxes in random_boxes())
    predicted.requires_grad_()
    _, actual = box_losses(predicted, target, 1)
    corners = [box_convert(boxes, "cxcywh", "xyxy") for boxes in (predicted, target)]
    expected = (1 - generalized_box_iou(*corners).diagonal()).sum()
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(*(torch.autograd.grad(x, predicted) for x in (actual, expected)))


def test_boxes_are_compared_with_their_own_targets_alone(record_operations):
    """The largest tensor grows with the number of pairs and not with its square."""
    largest = []
    for num_pairs in (10, 200):
        predicted, target = torch.rand(num_pairs, 4), torch.rand(num_pairs, 4)
        with record_operations() as operations:
            box_losses(predicted, target, 1)
        largest.append(operations.largest())
    assert largest[1] == 20 * largest[0]


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
    logits = 100 * (2 * target.float() - 1)
    assert dice_loss(logits, target, 1).item() == pytest.approx(0, abs=1e-5)
    assert mask_focal_loss(logits, target, 1, 0.25, 2.0).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    "mask_loss",
    [dice_loss, lambda *args: mask_focal_loss(*args, alpha=0.25, gamma=2.0)],
    ids=["dice", "focal"],
)
def test_no_masks_cost_exactly_nothing(mask_loss):
    logits = torch.zeros(0, 5, 6, requires_grad=True)
    loss = mask_loss(logits, torch.zeros(0, 5, 6, dtype=torch.bool), 1.0)
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
    target = torch.tensor([[[True, False, True]]])
    for gamma in (0.0, 0.5, 2.0):
        (mask_focal_loss(logits, target, 1, 0.25, gamma) + dice_loss(logits, target, 1)).backward()
        assert logits.grad.isfinite().all()


def reference_mask_losses(
    logits: torch.Tensor, target: torch.Tensor, alpha: float, gamma: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(focal, dice) step by step, the former by torchvision, of N×H×W logits and floats."""
    focal = sigmoid_focal_loss(logits, target, alpha, gamma).flatten(1).mean(1).sum()
    p, target = logits.sigmoid().flatten(1), target.flatten(1)
    dice = 1 - (2 * (p * target).sum(1) + 1) / (p.sum(1) + target.sum(1) + 1)
    return focal / NUM_TARGETS, dice.sum() / NUM_TARGETS


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.3, 1.5), (0.75, 0.0), (1.0, 3.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mask_losses_and_gradients_equal_the_usual_formulas(alpha, gamma, dtype):
    """Which are computed in double precision. Single precision may round a gradient's last bits."""
    torch.manual_seed(0)
    logits, target = 4 * torch.randn(5, 9, 8), torch.rand(5, 9, 8) > 0.6
    for row, extreme in enumerate((100.0, -100.0, 30.0, -30.0, 0.0)):
        logits[:, row] = extreme
    target[3], target[4] = False, True
    ours, double = (logits.to(t).requires_grad_() for t in (dtype, torch.float64))
    expected = reference_mask_losses(double, target.double(), alpha, gamma)
    actual = (
        mask_focal_loss(ours, target, NUM_TARGETS, alpha, gamma),
        dice_loss(ours, target, NUM_TARGETS),
    )
    for loss, reference in zip(actual, expected, strict=True):
        assert loss.dtype == dtype
        assert loss.item() == pytest.approx(reference.item(), rel=1e-6)
        (gradient,) = torch.autograd.grad(loss, ours)
        (wanted,) = torch.autograd.grad(reference, double)
        rtol = 1e-6 if dtype == torch.float64 else 1e-5
        atol = 1e-6 * wanted.abs().max().item()
        torch.testing.assert_close(gradient.double(), wanted, rtol=rtol, atol=atol)


def test_mask_losses_keep_few_bytes_for_the_gradient():
    """Of each pixel the logit, whether it is in the mask, and for dice the probability."""
    logits, target = random_masks()
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = mask_focal_loss(logits, target, 1, 0.25, 2.0) + dice_loss(logits, target, 1)
    of_pixels = [tensor for tensor in kept.values() if tensor.numel() == target.numel()]
    assert sum(tensor.nbytes for tensor in of_pixels) == (4 + 1 + 4) * target.numel()
    assert sum(tensor.nbytes for tensor in kept.values()) < 10 * target.numel()
    loss.backward()


def test_mask_losses_leave_their_arguments_alone():
    logits, target = random_masks()
    before = logits.detach().clone(), target.clone()
    (mask_focal_loss(logits, target, 1, 0.25, 2.0) + dice_loss(logits, target, 1)).backward()
    assert torch.equal(logits, before[0]) and torch.equal(target, before[1])


def test_mask_losses_can_be_compiled():
    """Whole, gradients included, and without a compiler of C++."""
    logits, target = random_masks()

    def both(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return mask_focal_loss(logits, target, 1, 0.25, 2.0) + dice_loss(logits, target, 1)

    compiled = torch.compile(both, backend="aot_eager", fullgraph=True)
    gradients = [torch.autograd.grad(f(logits, target), logits)[0] for f in (both, compiled)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-8)


def test_class_loss_equals_torchs_with_weights():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 7, 5), torch.randint(5, (2, 7))
    weight = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.3])
    expected = F.cross_entropy(logits.mT, target, weight)
    torch.testing.assert_close(class_loss(logits, target, 0.3), expected, rtol=1e-5, atol=1e-6)

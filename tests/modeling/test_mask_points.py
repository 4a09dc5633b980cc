"""Points at which masks are compared: their values, their choice, and the work that they spare."""

from __future__ import annotations

import pytest
import torch

from detr_d2.modeling.mask_points import compare_at_points

H, W, STRIDE, POINTS = 32, 48, 4, 400


def plane(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return 0.3 * y - 0.2 * x + 1.0


@pytest.fixture
def masks() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits on planes, at stride 4, and masks that say by themselves which pixel was taken."""
    y, x = torch.meshgrid(torch.arange(H // STRIDE), torch.arange(W // STRIDE), indexing="ij")
    logits = torch.stack([plane(y, x), -plane(y, x)])
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    return logits, torch.stack([plane(y / STRIDE, x / STRIDE) > 0, x < W // 2])


def test_values_are_those_of_the_same_points(masks):
    """A plane's sign is the first mask, up to the pixel in which a point lies."""
    torch.manual_seed(0)
    logits, targets = compare_at_points(*masks, POINTS)
    assert logits.shape == targets.shape == (2, POINTS)
    assert targets.dtype == torch.bool
    clear = logits[0].abs() > 0.3  # a pixel's breadth away from the border
    assert clear.sum() > 20
    assert torch.equal(targets[0][clear], logits[0][clear] > 0)


def test_points_at_the_border_have_the_values_of_the_border():
    logits, targets = compare_at_points(torch.full((1, 2, 2), 5.0), torch.ones(1, 8, 8) > 0, POINTS)
    torch.testing.assert_close(logits, torch.full((1, POINTS), 5.0))
    assert targets.all()


def test_most_points_are_where_the_mask_is_uncertain(masks):
    torch.manual_seed(0)
    logits, _ = compare_at_points(*masks, POINTS)
    assert logits.abs().mean() < 0.7 * masks[0].abs().mean()


def test_the_draw_follows_the_seed(masks):
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(compare_at_points(*masks, POINTS)[0])
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("counts", [(3, 2), (0, 0), (0, 4)])
def test_training_at_points_makes_no_whole_mask(tiny_model, make_batch, record_operations, counts):
    model = tiny_model(
        {
            "MODEL.DETR.FREEZE_DETECTOR": True,
            "MODEL.DETR.MASK_HEAD.NAME": "PixelEmbeddingMaskHead",
            "MODEL.DETR.LOSS.NUM_POINTS": 30,
        }
    )
    batch = [x for n in counts for x in make_batch((64, 96), num_targets=n, seed=n)]
    with record_operations() as operations:
        losses = model(batch)
        sum(losses.values()).backward()
    assert losses.keys() == {"loss_mask", "loss_dice"}
    assert all(loss.isfinite() for loss in losses.values())
    if sum(counts):
        whole = (sum(counts), 64, 96)
        made = [t for _, _, given in operations.calls for t in given if t[0] == whole]
        assert {dtype for _, dtype in made} <= {torch.bool}
        gradients = [p.grad for p in model.mask_head.parameters()]
        assert all(gradient.any() for gradient in gradients)


def test_metrics_see_whole_masks(tiny_model, make_batch):
    model = tiny_model({"MODEL.DETR.LOSS.NUM_POINTS": 30})
    seen = []
    model.criterion.mask_observer = lambda *masks: seen.append([tuple(x.shape) for x in masks])
    model(make_batch((64, 96), num_targets=3))
    assert seen == [[(3, 64, 96), (3, 64, 96), (3,)]]

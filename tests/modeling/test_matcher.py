"""The matcher against every possible assignment."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_d2.modeling.matcher import HungarianMatcher
from detr_d2.modeling.targets import Target

NUM_CLASSES = 4
WEIGHTS = {"cost_class": 1.0, "cost_l1": 5.0, "cost_giou": 2.0}
seeds = st.integers(0, 2**31)
property_test = settings(deadline=None, max_examples=60, database=None)


def random_boxes(*shape: int) -> torch.Tensor:
    """(cx, cy, w, h) within the image."""
    size = torch.rand(*shape, 2) * 0.9 + 0.05
    return torch.cat([size / 2 + torch.rand(*shape, 2) * (1 - size), size], dim=-1)


def random_case(seed: int, num_queries: int, *num_targets: int):
    torch.manual_seed(seed)
    logits = 2 * torch.randn(len(num_targets), num_queries, NUM_CLASSES + 1)
    boxes = random_boxes(len(num_targets), num_queries)
    return (
        logits,
        boxes,
        [Target(torch.randint(NUM_CLASSES, (n,)), random_boxes(n)) for n in num_targets],
    )


def slow_cost(logits: torch.Tensor, box: torch.Tensor, target_class: int, target_box) -> float:
    """The cost of giving one query to one target, number by number."""
    exponentials = logits.double().exp().tolist()
    probability = exponentials[target_class] / sum(exponentials)
    l1 = sum(abs(a - b) for a, b in zip(box.tolist(), target_box.tolist(), strict=True))
    corners = []
    for cx, cy, w, h in (box.tolist(), target_box.tolist()):
        corners.append((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = corners
    overlap = max(0, min(ax1, bx1) - max(ax0, bx0)) * max(0, min(ay1, by1) - max(ay0, by0))
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - overlap
    hull = (max(ax1, bx1) - min(ax0, bx0)) * (max(ay1, by1) - min(ay0, by0))
    return -probability + 5 * l1 - 2 * (overlap / union - (hull - union) / hull)


def cheapest(cost: list[list[float]], num_targets: int) -> float:
    """The smallest total over all ways to pair queries with targets."""
    num_queries, n = len(cost), min(len(cost), num_targets)
    return min(
        sum(cost[q][t] for q, t in zip(queries, targets, strict=True))
        for queries in itertools.combinations(range(num_queries), n)
        for targets in itertools.permutations(range(num_targets), n)
    )


@property_test
@given(seeds, st.integers(1, 5), st.integers(0, 5))
def test_total_cost_is_the_smallest_there_is(seed, num_queries, num_targets):
    logits, boxes, targets = random_case(seed, num_queries, num_targets)
    (((query_index, target_index),),) = HungarianMatcher(**WEIGHTS)(
        logits[None], boxes[None], targets
    )
    cost = [
        [
            slow_cost(logits[0, q], boxes[0, q], int(target_class), target_box)
            for target_class, target_box in zip(
                targets[0].classes, targets[0].boxes_cxcywh, strict=True
            )
        ]
        for q in range(num_queries)
    ]
    pairs = list(zip(query_index.tolist(), target_index.tolist(), strict=True))
    assert len(pairs) == min(num_queries, num_targets)
    assert query_index.tolist() == sorted(set(query_index.tolist()))
    assert len(set(target_index.tolist())) == len(pairs)
    assert sum(cost[q][t] for q, t in pairs) == pytest.approx(cheapest(cost, num_targets), abs=1e-5)


def test_costs_are_those_of_the_paper():
    logits, boxes, (target,) = random_case(0, 6, 4)
    cost = HungarianMatcher(**WEIGHTS).cost(logits[0], boxes[0], target)
    assert cost.shape == (6, 4)
    for q, t in itertools.product(range(6), range(4)):
        expected = slow_cost(
            logits[0, q], boxes[0, q], int(target.classes[t]), target.boxes_cxcywh[t]
        )
        assert cost[q, t].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", WEIGHTS)
def test_each_weight_scales_its_own_cost(name):
    logits, boxes, (target,) = random_case(0, 6, 4)
    nothing = dict.fromkeys(WEIGHTS, 0.0)
    parts = {
        key: HungarianMatcher(**{**nothing, key: 1.0}).cost(logits[0], boxes[0], target)
        for key in WEIGHTS
    }
    doubled = HungarianMatcher(**{**WEIGHTS, name: 2 * WEIGHTS[name]})
    expected = HungarianMatcher(**WEIGHTS).cost(logits[0], boxes[0], target)
    expected = expected + WEIGHTS[name] * parts[name]
    torch.testing.assert_close(doubled.cost(logits[0], boxes[0], target), expected)


@property_test
@given(seeds)
def test_layers_and_batches_are_matched_as_their_images_are(seed):
    logits, boxes, targets = random_case(seed, 6, 3, 0, 8)
    others, other_boxes, _ = random_case(seed + 1, 6, 3, 0, 8)
    logits, boxes = torch.stack([logits, others]), torch.stack([boxes, other_boxes])
    matcher = HungarianMatcher(**WEIGHTS)
    matched = matcher(logits, boxes, targets)
    assert [len(of_layer) for of_layer in matched] == [len(targets)] * 2
    for layer, i in itertools.product(range(2), range(len(targets))):
        pairs = matched[layer][i]
        of_one = logits[layer, i], boxes[layer, i]
        ((alone,),) = matcher(*(part[None, None] for part in of_one), [targets[i]])
        assert [len(part) for part in pairs] == [len(part) for part in alone]
        # Of ways that cost the same but for rounding, either may be found.
        cost = matcher.cost(*of_one, targets[i])
        assert cost[pairs].sum().item() == pytest.approx(cost[alone].sum().item(), abs=1e-5)


def test_queries_are_compared_with_targets_of_their_own_image_alone(monkeypatch):
    compared = []
    cost = HungarianMatcher.cost

    def counting(self, logits, boxes, target):
        compared.append(len(logits) * len(target))
        return cost(self, logits, boxes, target)

    monkeypatch.setattr(HungarianMatcher, "cost", counting)
    logits, boxes, targets = random_case(0, 5, 3, 0, 4)
    HungarianMatcher(**WEIGHTS)(logits.expand(2, -1, -1, -1), boxes.expand(2, -1, -1, -1), targets)
    assert compared == [2 * 5 * 3, 0, 2 * 5 * 4]  # L·Q×T of each image


def test_perfect_predictions_find_their_targets():
    logits, boxes, (target,) = random_case(0, 7, 5)
    order = torch.tensor([6, 2, 0, 5, 3])
    boxes[0, order] = target.boxes_cxcywh
    logits[0, order, target.classes] = 20.0
    matcher = HungarianMatcher(**WEIGHTS)
    (((query_index, target_index),),) = matcher(logits[None], boxes[None], [target])
    assert torch.equal(order[target_index], query_index)


def test_no_targets_match_nothing():
    logits, boxes, targets = random_case(0, 5, 0, 0)
    (of_layer,) = HungarianMatcher(**WEIGHTS)(logits[None], boxes[None], targets)
    assert len(of_layer) == 2
    for query_index, target_index in of_layer:
        assert query_index.shape == target_index.shape == (0,)
        assert query_index.dtype == target_index.dtype == torch.int64


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["logits", "boxes"])
def test_broken_predictions_are_refused(value, where):
    logits, boxes, targets = random_case(0, 5, 3)
    {"logits": logits, "boxes": boxes}[where][0, 2, 1] = value
    with pytest.raises(FloatingPointError, match=r"not finite.*SOLVER\.BASE_LR"):
        HungarianMatcher(**WEIGHTS)(logits[None], boxes[None], targets)


def test_half_precision_is_matched_in_single():
    logits, boxes, targets = random_case(0, 6, 4)
    logits, boxes = logits.bfloat16(), boxes.bfloat16()
    matcher = HungarianMatcher(**WEIGHTS)
    cost = matcher.cost(logits[0], boxes[0], targets[0])
    assert cost.dtype == torch.float32
    assert torch.equal(cost, matcher.cost(logits[0].float(), boxes[0].float(), targets[0]))

"""Each predicted segment is a true positive, a false positive or ignored, as the metric counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_d2.evaluation import PanopticStats, Segments, match_segments

NUM_CLASSES = 3


def random_maps(seed):
    """Rectangles with void, crowds and hidden segments, and a similar prediction."""
    rng = np.random.default_rng(seed)
    shape, num_gt = tuple(rng.integers(1, 16, size=2)), int(rng.integers(0, 7))
    gt_ids = np.zeros(shape, dtype=np.int64)
    for number in range(1, num_gt + 1):
        top, left = rng.integers(shape)
        gt_ids[top : top + rng.integers(1, 12), left : left + rng.integers(1, 12)] = 10 * number
    gt_classes = rng.integers(0, NUM_CLASSES, num_gt)
    gt = Segments(10 * np.arange(1, num_gt + 1), gt_classes, rng.random(num_gt) < 0.3)
    pred_ids = np.roll(gt_ids, rng.integers(0, 3, size=2), axis=(0, 1)) // 10
    pred_ids[:2, :3] = num_gt + 1
    shown = np.setdiff1d(pred_ids, 0)
    classes = np.append(gt_classes, 0)
    classes = np.where(rng.random(len(classes)) < 0.8, classes, rng.permutation(classes))
    return pred_ids, Segments(shown, classes[shown - 1]), gt_ids, gt


@pytest.mark.parametrize("seed", range(12))
def test_overlaps_and_ious_are_counted_pixel_by_pixel(seed):
    pred_ids, pred, gt_ids, gt = random_maps(seed)
    matching = match_segments(pred_ids, pred, gt_ids, gt, NUM_CLASSES)
    for g, gt_id in enumerate([*gt.ids, 0]):
        for p, pred_id in enumerate([*pred.ids, 0]):
            here, there = gt_ids == gt_id, pred_ids == pred_id
            assert matching.overlaps[g, p] == (here & there).sum()
            if gt_id and pred_id:
                union = ((here | there) & (here | (gt_ids != 0))).sum()
                expected = (here & there).sum() / union if union else 0
                assert matching.ious[g, p] == expected
    assert matching.overlaps.sum() == gt_ids.size


@settings(deadline=None, max_examples=60, database=None)
@given(st.integers(0, 2**32 - 1))
def test_segments_are_those_that_the_metric_counts(seed):
    maps = random_maps(seed)
    matching = match_segments(*maps, NUM_CLASSES)
    stats = PanopticStats.of_matching(matching)
    pred, gt = matching.pred.classes, matching.gt.classes
    for classes, chosen, counts in (
        (pred, matching.is_true_positive, stats.tp),
        (gt, matching.is_found, stats.tp),
        (pred, matching.is_false_positive, stats.fp),
        (gt, matching.is_false_negative, stats.fn),
    ):
        assert np.bincount(classes[chosen], minlength=NUM_CLASSES).tolist() == counts.tolist()
    kinds = [matching.is_true_positive, matching.is_false_positive, matching.is_ignored]
    assert (np.sum(kinds, axis=0) == 1).all()
    assert (matching.overlap_pairs.sum(0) <= 1).all() and (matching.overlap_pairs.sum(1) <= 1).all()
    ious = matching.ious[matching.matches].tolist()
    assert sum(int(iou * 2**53) for iou in ious) == stats.iou_units.sum()


def test_a_match_is_never_ignored():
    """Not even where most of the matched segment lies on void."""
    gt_ids = np.repeat([[5, 0]], (3, 7), axis=1)
    pred_ids = np.ones_like(gt_ids)
    matching = match_segments(pred_ids, Segments([1], [0]), gt_ids, Segments([5], [0]), 1)
    assert matching.is_true_positive.all() and not matching.is_ignored.any()


def test_stats_of_other_groups_keep_the_matches():
    pred_ids, pred, gt_ids, gt = random_maps(4)
    matching = match_segments(pred_ids, pred, gt_ids, gt, NUM_CLASSES)
    own = PanopticStats.of_matching(matching)
    groups = np.ones(len(gt.ids), dtype=int), np.zeros(len(pred.ids), dtype=int)
    stats = PanopticStats.of_groups(matching, *groups, 2)
    assert stats.tp.tolist() == [0, own.tp.sum()] and stats.fn.tolist() == [0, own.fn.sum()]
    assert stats.fp.tolist() == [own.fp.sum(), 0]
    assert stats.iou_units.sum() == own.iou_units.sum() > 0


def test_nothing_on_either_side():
    nothing = np.zeros((3, 5), dtype=np.int64)
    none, one = Segments([], []), Segments([1], [0])
    for pred_ids, pred, gt_ids, gt in (
        (nothing, none, nothing, none),
        (nothing + 1, one, nothing, none),
        (nothing, none, nothing + 1, one),
    ):
        matching = match_segments(pred_ids, pred, gt_ids, gt, 1)
        assert not matching.matches.any()
        assert matching.is_false_negative.sum() == len(gt.ids)
        assert not matching.is_false_positive.any()  # what lies on void is ignored

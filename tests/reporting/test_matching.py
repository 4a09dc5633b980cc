"""The segments that are right and wrong are those that the metric counts."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_d2.evaluation import Segments, compare_panoptic
from detr_d2.reporting.matching import NOTHING, OTHER_CLASS, OUTLINE, SegmentMatching

seeds = st.integers(0, 2**32 - 1)


def test_counts_are_those_of_the_metric(scene):
    @settings(deadline=None, max_examples=60, database=None)
    @given(seeds)
    def check(seed):
        *maps, num_classes = scene(seed)
        stats = compare_panoptic(*maps, num_classes)
        matching = SegmentMatching.of_image(*maps)
        pred, gt = matching.pred.classes, matching.gt.classes
        for classes, chosen, counts in (
            (pred, matching.is_right, stats.tp),
            (gt, matching.is_found, stats.tp),
            (pred, matching.is_surplus, stats.fp),
            (gt, matching.is_missed, stats.fn),
        ):
            assert np.bincount(classes[chosen], minlength=num_classes).tolist() == counts.tolist()
        ious = matching.ious[matching.matches].tolist()
        assert sum(int(iou * 2**53) for iou in ious) == stats.iou_units.sum()

    check()


def test_overlaps_are_counted_pixels(scene):
    pred_ids, pred, gt_ids, gt, _ = scene(3)
    matching = SegmentMatching.of_image(pred_ids, pred, gt_ids, gt)
    for g, gt_id in enumerate([*gt.ids, 0]):
        for p, pred_id in enumerate([*pred.ids, 0]):
            shared = ((gt_ids == gt_id) & (pred_ids == pred_id)).sum()
            assert matching.overlaps[g, p] == shared
    assert matching.overlaps.sum() == gt_ids.size


def test_reasons():
    """Four annotated segments: found as another class, found roughly, not found, found."""
    gt_ids = np.zeros((4, 40), dtype=np.int64)
    pred_ids = gt_ids.copy()
    for k in range(4):
        gt_ids[:, 10 * k : 10 * k + 8] = k + 1
    pred_ids[:, 0:8] = 1  # class 1 on a segment of class 0
    pred_ids[:, 10:13] = 2  # 3 of 8 columns
    pred_ids[:, 30:38] = 3
    gt = Segments([1, 2, 3, 4], [0, 0, 0, 0])
    matching = SegmentMatching.of_image(pred_ids, Segments([1, 2, 3], [1, 0, 0]), gt_ids, gt)
    of_missed, of_surplus = matching.reasons()
    assert matching.is_missed.tolist() == [True, True, True, False]
    assert of_missed[:3].tolist() == [OTHER_CLASS, OUTLINE, NOTHING]
    assert matching.is_surplus.tolist() == [True, True, False]
    assert of_surplus[:2].tolist() == [OTHER_CLASS, OUTLINE]


def test_nothing_on_either_side():
    nothing = np.zeros((3, 5), dtype=np.int64)
    none, one = Segments([], []), Segments([1], [0])
    for pred_ids, pred, gt_ids, gt in (
        (nothing, none, nothing, none),
        (nothing + 1, one, nothing, none),
        (nothing, none, nothing + 1, one),
    ):
        matching = SegmentMatching.of_image(pred_ids, pred, gt_ids, gt)
        assert not matching.matches.any()
        assert matching.is_missed.sum() == len(gt.ids)
        assert not matching.is_surplus.any()  # what lies on void is forgiven
        assert [len(of) for of in matching.reasons()] == [len(gt.ids), len(pred.ids)]

"""The reasons why segments have no match."""

import numpy as np
import pytest

from detr_d2.apps.report.mismatch_reasons import (
    NOTHING,
    OTHER_CLASS,
    OUTLINE,
    find_reasons,
    ious_of_one_class,
)
from detr_d2.evaluation import Segments, match_segments


def test_reasons():
    """Four annotated segments: found as another class, found roughly, not found, found."""
    gt_ids = np.zeros((4, 40), dtype=np.int64)
    pred_ids = gt_ids.copy()
    for k in range(4):
        gt_ids[:, 10 * k : 10 * k + 8] = k + 1
    pred_ids[:, 0:8] = 1  # class 1 on a segment of class 0
    pred_ids[:, 10:13] = 2  # 3 of 8 columns
    pred_ids[:, 30:38] = 3
    gt, pred = Segments([1, 2, 3, 4], [0, 0, 0, 0]), Segments([1, 2, 3], [1, 0, 0])
    matching = match_segments(pred_ids, pred, gt_ids, gt, 2)
    gt_reasons, pred_reasons = find_reasons(matching)
    assert matching.is_false_negative.tolist() == [True, True, True, False]
    assert gt_reasons[:3].tolist() == [OTHER_CLASS, OUTLINE, NOTHING]
    assert matching.is_false_positive.tolist() == [True, True, False]
    assert pred_reasons[:2].tolist() == [OTHER_CLASS, OUTLINE]


def test_crowds_are_no_reason():
    """A predicted segment with a third of its pixels on a crowd of its class matches nothing."""
    gt_ids = np.zeros((4, 20), dtype=np.int64)
    gt_ids[:, :8], gt_ids[:, 8:] = 1, 2
    pred_ids = np.zeros_like(gt_ids)
    pred_ids[:, 5:13] = 7
    gt = Segments([1, 2], [0, 1], [True, False])
    matching = match_segments(pred_ids, Segments([7], [0]), gt_ids, gt, 2)
    assert matching.ious[0, 0] > 0.1 and matching.is_false_positive.all()
    assert find_reasons(matching)[1].tolist() == [NOTHING]
    assert not ious_of_one_class(matching).any()


@pytest.mark.parametrize("num_gt, num_pred", [(0, 0), (0, 1), (1, 0)])
def test_nothing_on_either_side(num_gt, num_pred):
    ids = np.ones((3, 5), dtype=np.int64)
    gt, pred = (Segments([1] * n, [0] * n) for n in (num_gt, num_pred))
    matching = match_segments(ids * num_pred, pred, ids * num_gt, gt, 1)
    assert [len(of) for of in find_reasons(matching)] == [num_gt, num_pred]

"""Id maps and segments that are refused, and the messages."""

import numpy as np
import pytest

from detr_d2.evaluation import Segments, match_segments

IDS, ONE, NONE = np.array([[0, 1]]), Segments([1], [0]), Segments([], [])


@pytest.mark.parametrize(
    ("pred_ids", "pred", "gt_ids", "gt", "message"),
    [
        (IDS, NONE, IDS, ONE, "prediction: segments_info lacks segment 1 "),
        (IDS, ONE, IDS, NONE, "ground truth: segments_info lacks segment 1 "),
        (-IDS, NONE, IDS, ONE, "prediction: segments_info lacks segment -1 "),
        (0 * IDS, ONE, IDS, ONE, "prediction: .* segment 1, without any pixel"),
        (IDS, ONE, IDS, Segments([1, 0], [0, 0]), "ground truth: .* id 0"),
        (IDS, Segments([1], [2]), IDS, ONE, "prediction: class 2 of segment 1 .* 0 … 1"),
        (IDS, ONE, IDS, Segments([1], [-1]), "ground truth: class -1 of segment 1"),
        (IDS, ONE, IDS.T, ONE, r"\(1, 2\) and \(2, 1\)"),
        (IDS[0], ONE, IDS[0], ONE, "height, width"),
        (IDS / 2, ONE, IDS, ONE, "predicted ids must be integers .* float64"),
        (IDS.astype(np.uint64) + 2**63, ONE, IDS, ONE, "63 bits"),
        (np.arange(9)[None], NONE, IDS, ONE, "have one shape"),
        (np.arange(9)[None], NONE, np.zeros((1, 9), int), NONE, r"1, 2, 3, 4, 5, … \(8 in all\)"),
    ],
)
def test_invalid_input(pred_ids, pred, gt_ids, gt, message):
    with pytest.raises(ValueError, match=message):
        match_segments(pred_ids, pred, gt_ids, gt, num_classes=2)


@pytest.mark.parametrize(
    ("ids", "classes", "message"),
    [
        ([4, 5, 4], [0, 1, 1], "segment 4 more than once"),
        ([4, 5], [0], "2 segment ids, 1 classes"),
        ([4.5], [0], "segment ids must be integers"),
        ([2**70], [0], "segment ids must be integers"),
        ([1], [True], "classes of segments must be integers"),
    ],
)
def test_invalid_segments(ids, classes, message):
    with pytest.raises(ValueError, match=message):
        Segments(ids, classes)

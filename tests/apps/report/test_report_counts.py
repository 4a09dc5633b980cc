"""The counts of a report equal counts made pixel by pixel and segment by segment."""

import functools
import operator

import numpy as np
import pytest

from detr_d2.apps.report.report_counts import SIZE_EDGES, Calibration, ReportCounts
from detr_d2.evaluation import PanopticStats, SegmentMatching, Segments, match_segments

K = 4


def counts_of(maps, scores=None) -> tuple[ReportCounts, SegmentMatching]:
    matching = match_segments(*maps, K)
    return ReportCounts.of_image(matching, [PanopticStats.of_matching(matching)], scores), matching


@pytest.mark.parametrize("seed", range(8))
def test_pixels_are_confused_as_counted_one_by_one(scene, seed):
    pred_ids, pred, gt_ids, gt, _ = scene(seed)
    counts, _ = counts_of((pred_ids, pred, gt_ids, gt))
    crowd = dict(zip(gt.ids.tolist(), gt.is_crowd.tolist(), strict=True))
    gt_class = dict(zip(gt.ids.tolist(), gt.classes.tolist(), strict=True))
    pred_class = dict(zip(pred.ids.tolist(), pred.classes.tolist(), strict=True))
    expected = np.zeros((K + 1, K + 1), dtype=int)
    for g, p in zip(gt_ids.ravel().tolist(), pred_ids.ravel().tolist(), strict=True):
        row = K if crowd.get(g, True) else gt_class[g]
        expected[row, pred_class.get(p, K)] += 1
    assert counts.pixels.tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(8))
def test_segments_reasons_and_sizes_add_up(scene, seed):
    maps = scene(seed)[:4]
    counts, matching = counts_of(maps)
    stats = counts.stats
    assert np.diag(counts.segments)[:K].tolist() == stats.tp.tolist()
    # Each annotated segment is counted once in its row.
    annotated = np.bincount(matching.gt.classes[~matching.gt.is_crowd], minlength=K)
    assert counts.segments[:K].sum(1).tolist() == annotated.tolist()
    assert counts.fn_reasons.sum(1).tolist() == stats.fn.tolist()
    assert counts.fp_reasons.sum(1).tolist() == stats.fp.tolist()
    sizes = counts.sizes
    assert (sizes.tp.sum(), sizes.fp.sum()) == (stats.tp.sum(), stats.fp.sum())
    assert sizes.fn.sum() == stats.fn.sum()
    assert sizes.iou_units.sum() == stats.iou_units.sum()
    for i, edge in enumerate(SIZE_EDGES):
        small = matching.gt_areas < edge**2
        assert sizes.tp[: i + 1].sum() == matching.is_found[small].sum()
        assert (
            sizes.fp[: i + 1].sum()
            == matching.is_false_positive[matching.pred_areas < edge**2].sum()
        )


def test_calibration_against_its_definition():
    rng = np.random.default_rng(0)
    scores, right = rng.random(500), rng.random(500) < 0.6
    scores[:3] = 0.0, 1.0, 0.05  # at the edges of bins
    calibration = Calibration.of_scores(scores, right)
    error = 0.0
    for i in range(20):
        upper = scores <= 1 if i == 19 else scores < (i + 1) / 20
        some = (scores >= i / 20) & upper
        assert calibration.count[i] == some.sum()
        error += abs(right[some].mean() - scores[some].mean()) * some.sum() / 500
    assert calibration.expected_error == pytest.approx(error, abs=1e-12)
    perfect = Calibration.of_scores(np.ones(5), np.ones(5, dtype=bool))
    assert perfect.expected_error == 0
    assert np.isnan(Calibration.of_scores(np.zeros(0), np.zeros(0, dtype=bool)).expected_error)


def test_ignored_segments_are_left_out_of_calibration(scene):
    for seed in range(30):
        maps = scene(seed)[:4]
        scores = np.linspace(0.1, 0.9, len(maps[1].ids))
        counts, matching = counts_of(maps, scores)
        assert counts.calibration.tp.sum() == counts.stats.tp.sum()
        assert counts.calibration.count.sum() == len(scores) - matching.is_ignored.sum()


def test_true_positives_that_lie_mostly_on_void_are_calibrated():
    gt_ids, pred_ids = np.zeros((2, 10), dtype=np.int64), np.ones((2, 10), dtype=np.int64)
    gt_ids[:, :3] = 5
    counts, _ = counts_of((pred_ids, Segments([1], [0]), gt_ids, Segments([5], [0])), np.ones(1))
    assert counts.stats.tp.sum() == counts.calibration.tp.sum() == 1


def test_sums_do_not_depend_on_the_order(scene):
    parts = []
    for seed in range(12):
        maps = scene(seed)[:4]
        scores = np.random.default_rng(seed).random(len(maps[1].ids))
        parts.append(counts_of(maps, scores)[0])
    zero = ReportCounts.zeros(K, 1)
    one = functools.reduce(operator.add, parts, zero)
    other = functools.reduce(operator.add, reversed(parts), zero)
    assert one.calibration.expected_error == other.calibration.expected_error
    assert one.sizes.iou_sum.tolist() == other.sizes.iou_sum.tolist()
    assert one.pixels.tolist() == other.pixels.tolist()
    assert one.sweep[0].tp.tolist() == one.stats.tp.tolist()


def test_a_size_begins_at_its_edge():
    ids = np.zeros((17, 40), dtype=np.int64)
    ids[:16, :16], ids[:16, 16:31] = 1, 2  # 16² pixels, and fewer
    segments = Segments([1, 2], [0, 1])
    counts, _ = counts_of((ids, segments, ids, segments))
    assert counts.sizes.tp.tolist() == [1, 1, 0, 0, 0, 0, 0]

"""Panoptic quality equals panopticapi's on random scenes; other properties of it."""

import contextlib
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panopticapi.evaluation import pq_compute_single_core

from detr_d2.data.panoptic_png import write_panoptic_png
from detr_d2.evaluation import (
    PanopticStats,
    Segments,
    class_quality,
    group_qualities,
    group_quality,
    match_segments,
    segment_matching,
)

NUM_CLASSES = 4
IS_THING = np.array([True, True, False, False])
seeds = st.integers(0, 2**32 - 1)
property_test = settings(deadline=None, max_examples=120, database=None)


@dataclass
class Scene:
    pred_ids: np.ndarray
    pred: Segments
    gt_ids: np.ndarray
    gt: Segments

    def compare(self) -> PanopticStats:
        return compare(self.pred_ids, self.pred, self.gt_ids, self.gt, NUM_CLASSES)


def compare(*maps) -> PanopticStats:
    return PanopticStats.of_matching(match_segments(*maps))


def paint(rng: np.random.Generator, canvas: np.ndarray, labels: range) -> np.ndarray:
    """Paints a rectangle for each label; later ones may cover earlier ones. Label 0 is void."""
    canvas = canvas.copy()
    for label in labels:
        top, left = rng.integers(canvas.shape)
        bottom, right = rng.integers((top, left), canvas.shape) + 1
        canvas[top:bottom, left:right] = label if rng.random() < 0.9 else 0
    return canvas


def random_scene(seed: int, largest_id: int = 2**24 - 1) -> Scene:
    """A ground truth with void, crowds and segments without pixels, and a similar prediction."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 15, size=2))
    num_gt, num_new = rng.integers(0, 8), rng.integers(0, 5)
    gt_labels = paint(rng, np.zeros(shape, dtype=int), range(1, num_gt + 1))
    pred_labels = paint(rng, gt_labels, range(num_gt + 1, num_gt + num_new + 1))
    if rng.random() < 0.1:
        pred_labels[:] = 0

    classes = rng.integers(0, rng.integers(1, NUM_CLASSES + 1), size=num_gt + num_new)
    pred_classes = np.where(rng.random(len(classes)) < 0.8, classes, rng.permutation(classes))
    gt_values = np.append(0, rng.choice(largest_id, num_gt, replace=False) + 1)
    pred_values = np.append(0, rng.choice(largest_id, len(classes), replace=False) + 1)
    predicted = np.setdiff1d(pred_labels, 0)
    return Scene(
        pred_values[pred_labels],
        Segments(pred_values[predicted], pred_classes[predicted - 1]),
        gt_values[gt_labels],
        Segments(gt_values[1:], classes[:num_gt], rng.random(num_gt) < 0.3),
    )


def reference_stats(scenes: list[Scene]):
    """panopticapi's PQStat of scenes written as PNGs and annotations."""

    def annotation(name: str, ids: np.ndarray, segments: Segments) -> dict:
        write_panoptic_png(ids, Path(folder) / name)
        listed = zip(segments.ids, segments.classes, segments.is_crowd, strict=True)
        return {
            "image_id": name,
            "file_name": name,
            "segments_info": [
                {"id": i, "category_id": k, "iscrowd": int(crowd), "area": int((ids == i).sum())}
                for i, k, crowd in listed
            ],
        }

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        pairs = [
            (annotation(f"gt{i}.png", s.gt_ids, s.gt), annotation(f"{i}.png", s.pred_ids, s.pred))
            for i, s in enumerate(scenes)
        ]
        return pq_compute_single_core(0, pairs, folder, folder, reference_categories())


def reference_categories() -> dict:
    return {k: {"id": k, "isthing": int(IS_THING[k])} for k in range(NUM_CLASSES)}


def total(scenes: list[Scene]) -> PanopticStats:
    return sum((scene.compare() for scene in scenes), PanopticStats.zeros(NUM_CLASSES))


def same_bits(one: PanopticStats, other: PanopticStats) -> bool:
    pairs = [(one.iou_sum, other.iou_sum), (one.tp, other.tp), (one.fp, other.fp)]
    return all(np.array_equal(a, b) for a, b in [*pairs, (one.fn, other.fn)])


@property_test
@given(st.lists(seeds, min_size=1, max_size=4))
def test_equals_panopticapi(scene_seeds):
    scenes = [random_scene(seed) for seed in scene_seeds]
    stats, expected = total(scenes), reference_stats(scenes)
    for k in range(NUM_CLASSES):
        assert (stats.tp[k], stats.fp[k], stats.fn[k]) == (
            expected[k].tp,
            expected[k].fp,
            expected[k].fn,
        )
        assert stats.iou_sum[k] == pytest.approx(expected[k].iou, abs=1e-9)
    groups = group_qualities(stats, IS_THING)
    for isthing, name in ((None, "All"), (True, "Things"), (False, "Stuff")):
        group = groups[name]
        if group.num_classes == 0:
            assert np.isnan([group.pq, group.sq, group.rq]).all()
            continue
        means, per_class = expected.pq_average(reference_categories(), isthing)
        assert group.num_classes == means["n"]
        assert (group.pq, group.sq, group.rq) == pytest.approx(
            (means["pq"], means["sq"], means["rq"]), abs=1e-9
        )
        pq = class_quality(stats).pq
        for k, figures in per_class.items():
            assert np.isnan(pq[k]) or pq[k] == pytest.approx(figures["pq"], abs=1e-9)


def test_random_scenes_reach_every_rule():
    """Guards the generator: matches, crowds, ignored predictions and empty images all occur."""
    scenes = [random_scene(seed) for seed in range(300)]
    stats = total(scenes)
    crowds = [np.bincount(s.gt.classes[s.gt.is_crowd]).max(initial=0) for s in scenes]
    assert min(stats.tp.min(), stats.fp.min(), stats.fn.min()) > 20
    assert (
        max(crowds) > 1 and sum(len(s.pred.ids) for s in scenes) > stats.tp.sum() + stats.fp.sum()
    )
    assert any(len(s.pred.ids) == 0 < len(s.gt.ids) for s in scenes)
    assert any(len(s.gt.ids) == 0 < len(s.pred.ids) for s in scenes)


@property_test
@given(seeds)
def test_ids_of_any_size(seed):
    small, large = random_scene(seed), random_scene(seed)
    for scene_ids, segments in ((large.pred_ids, large.pred), (large.gt_ids, large.gt)):
        scene_ids[scene_ids > 0] += 2**62
        segments.ids[:] += 2**62
    assert same_bits(small.compare(), large.compare())


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint64, ">i4"])
def test_ids_of_any_type_and_layout(dtype):
    for seed in range(20):
        scene = random_scene(seed, largest_id=100)
        expected = scene.compare()
        scene.pred_ids = scene.pred_ids.astype(dtype)
        scene.gt_ids = np.asfortranarray(scene.gt_ids)
        assert same_bits(scene.compare(), expected)


def test_pixels_are_looked_up_once_a_run(monkeypatch):
    looked_up = []
    segment_index = segment_matching._segment_index
    monkeypatch.setattr(
        segment_matching,
        "_segment_index",
        lambda ids, *rest: looked_up.append(ids.size) or segment_index(ids, *rest),
    )
    gt_ids = np.repeat([[1, 2], [2, 3]], (30, 50), axis=0).repeat(40, axis=1)  # 80×80 pixels
    pred_ids = np.full_like(gt_ids, 5)
    match_segments(pred_ids, Segments([5], [0]), gt_ids, Segments([1, 2, 3], [0, 1, 0]), 2)
    # Each row has two runs; where the upper rows end, two runs are one, so there is one run less.
    assert looked_up == [2 * 80 - 1] * 2


@property_test
@given(st.lists(seeds, min_size=1, max_size=12), seeds)
def test_sums_do_not_depend_on_order_or_split(scene_seeds, order_seed):
    stats = [random_scene(seed).compare() for seed in scene_seeds]
    rng = np.random.default_rng(order_seed)
    zero = PanopticStats.zeros(NUM_CLASSES)
    shares = np.array_split(rng.permutation(len(stats)), rng.integers(1, 5))
    split = sum((sum((stats[i] for i in share), zero) for share in shares), zero)
    assert same_bits(sum(stats, zero), split)


@property_test
@given(seeds)
def test_bounds_and_product(seed):
    stats = random_scene(seed).compare()
    quality = class_quality(stats)
    pq, sq, rq = (values[stats.occurs] for values in (quality.pq, quality.sq, quality.rq))
    for values in (pq, sq, rq):
        assert ((0 <= values) & (values <= 1)).all()
    np.testing.assert_allclose(pq, sq * rq, rtol=1e-12)
    assert np.isnan(quality.pq[~stats.occurs]).all()


@property_test
@given(seeds)
def test_ground_truth_predicted_exactly_is_perfect(seed):
    scene = random_scene(seed)
    present = np.isin(scene.gt.ids, scene.gt_ids)
    perfect = Segments(scene.gt.ids[present], scene.gt.classes[present])
    gt = Segments(perfect.ids, perfect.classes, scene.gt.is_crowd[present])
    stats = compare(scene.gt_ids, perfect, scene.gt_ids, gt, NUM_CLASSES)
    last_crowd_alone = all((gt.classes[gt.is_crowd] == k).sum() <= 1 for k in range(NUM_CLASSES))
    assert stats.tp.sum() == (~gt.is_crowd).sum() and stats.fn.sum() == 0
    assert stats.fp.sum() == 0 or not last_crowd_alone
    assert (class_quality(stats).sq[stats.tp > 0] == 1).all()


def test_by_hand():
    """Thing 7 is found with IoU 3/4, thing 8 is not; most of predicted segment 2 is void."""
    gt_ids = np.array([[7, 7, 7, 7, 0, 0], [8, 8, 8, 8, 0, 0]])
    pred_ids = np.array([[1, 1, 1, 0, 2, 2], [0, 0, 0, 2, 2, 2]])
    stats = compare(pred_ids, Segments([1, 2], [0, 0]), gt_ids, Segments([7, 8], [0, 0]), 2)
    assert (stats.tp[0], stats.fp[0], stats.fn[0]) == (1, 0, 1)
    group = group_quality(stats)
    assert group.num_classes == 1
    assert (group.pq, group.sq, group.rq) == pytest.approx((0.75 / 1.5, 0.75, 1 / 1.5))


def test_several_crowds_of_a_class_count_as_in_panopticapi():
    """A prediction on the last of two crowds of its class is ignored, on the first it is not."""
    gt_ids = np.array([[1, 1, 2, 2]])
    gt = Segments([1, 2], [0, 0], [True, True])
    on_first = Scene(np.array([[5, 5, 0, 0]]), Segments([5], [0]), gt_ids, gt)
    on_last = Scene(np.array([[0, 0, 5, 5]]), Segments([5], [0]), gt_ids, gt)
    for scene, false_positives in ((on_first, 1), (on_last, 0)):
        assert scene.compare().fp[0] == false_positives == reference_stats([scene])[0].fp


def test_a_predicted_segment_may_have_id_zero():
    """DETR's own post-processing counts from 0."""
    scene = Scene(np.array([[0, 0, 3]]), Segments([0, 3], [1, 2]), np.array([[9, 9, 4]]), None)
    scene.gt = Segments([9, 4], [1, 2])
    assert scene.compare().tp.tolist() == [0, 1, 1, 0]
    assert reference_stats([scene])[1].tp == 1


def test_empty_map_and_group_without_segments():
    nothing = Segments([], [])
    stats = compare(np.zeros((0, 5), int), nothing, np.zeros((0, 5), int), nothing, 3)
    group = group_quality(stats)
    assert group.num_classes == 0
    assert np.isnan([group.pq, group.sq, group.rq]).all()


def test_arguments_are_left_alone():
    scene, untouched = random_scene(3), random_scene(3)
    scene.compare()
    np.testing.assert_array_equal(scene.pred_ids, untouched.pred_ids)
    np.testing.assert_array_equal(scene.gt.is_crowd, untouched.gt.is_crowd)

"""Segments keep their numbers from frame to frame."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_d2.apps.demo import SegmentTracker, tracking
from detr_d2.apps.demo.tracking import MIN_IOU, Region, match_regions, regions_of
from detr_d2.visualization import PanopticScene, SceneSegment

SIZE = (60, 90)


def scene_of(*squares, size=SIZE, side=20):
    """Squares of (class, left, upper), later ones on top; ids count from 1."""
    ids = np.zeros(size, np.int32)
    infos = []
    for id, (class_id, left, upper) in enumerate(squares, start=1):
        ids[upper : upper + side, left : left + side] = id
        infos.append({"id": id, "category_id": class_id, "isthing": class_id < 5})
    return PanopticScene.from_panoptic(ids, infos)


def numbers(tracker, *squares, **more):
    return [segment.id for segment in tracker.follow(scene_of(*squares, **more)).segments]


def test_moving_squares_keep_their_numbers_in_whatever_order_they_come():
    tracker = SegmentTracker()
    for step in range(15):
        squares = [(0, 2 * step, 0), (0, 60 - 2 * step, 30), (1, 30, 35)]
        order = np.random.default_rng(step).permutation(3)
        got = numbers(tracker, *(squares[i] for i in order))
        if step == 0:
            first = {i: number for i, number in zip(order, got, strict=True)}
        assert got == [first[i] for i in order]
    assert tracker.num_remembered == 3


def test_ids_of_the_picture_follow_the_numbers():
    tracker = SegmentTracker()
    tracker.follow(scene_of((0, 0, 0), (0, 50, 30)))
    followed = tracker.follow(scene_of((0, 50, 30), (0, 0, 0)))
    assert (followed.ids[:20, :20] == 1).all() and (followed.ids[30:50, 50:70] == 2).all()
    assert [info["id"] for info in followed.segments_info] == [2, 1]


def test_segments_come_go_and_return():
    tracker = SegmentTracker()
    assert numbers(tracker, (0, 0, 0)) == [1]
    assert numbers(tracker, (0, 0, 0), (0, 40, 0)) == [1, 2]
    for _ in range(tracking.MAX_FRAMES_UNSEEN):
        assert numbers(tracker, (0, 40, 0)) == [2]
    assert numbers(tracker, (0, 2, 0), (0, 40, 0)) == [1, 2]  # just in time
    for _ in range(tracking.MAX_FRAMES_UNSEEN + 1):
        assert numbers(tracker, (0, 40, 0)) == [2]
    assert numbers(tracker, (0, 2, 0), (0, 40, 0)) == [3, 2]
    assert numbers(tracker) == []
    # Another class in the same place is another segment; so is one that is far away.
    assert numbers(tracker, (1, 40, 0), (0, 0, 40)) == [4, 5]


def test_who_was_there_a_moment_ago_comes_before_who_has_gone():
    tracker = SegmentTracker()
    numbers(tracker, (0, 0, 0), (0, 40, 0))
    assert numbers(tracker, (0, 36, 0)) == [2]
    assert numbers(tracker, (0, 30, 0)) == [2]
    assert numbers(tracker, (0, 24, 0)) == [2]
    # Right on the place of the first, but it is the second that has moved.
    assert numbers(tracker, (0, 12, 0)) == [2]
    assert numbers(tracker, (0, 6, 0)) == [2]


def test_stuff_stays_the_same_wherever_it_is():
    tracker = SegmentTracker()
    assert numbers(tracker, (7, 0, 0), (0, 40, 0)) == [1, 2]
    assert numbers(tracker, (7, 60, 40), (0, 0, 40)) == [1, 3]


def test_what_is_remembered_is_bounded():
    tracker = SegmentTracker()
    for step in range(120):
        squares = [(step % 5, 10 * column, 10 * row) for row in range(6) for column in range(9)]
        numbers(tracker, *squares[step % 7 :], side=10 if step % 2 else 4)
        assert tracker.num_remembered <= 54 + tracking.MAX_UNSEEN


def test_frames_of_another_size_start_again():
    tracker = SegmentTracker()
    assert numbers(tracker, (0, 0, 0)) == [1]
    assert numbers(tracker, (0, 0, 0), size=(70, 90)) == [2]


def test_small_segments_of_large_frames_are_followed():
    tracker = SegmentTracker()
    for left in (101, 102, 101):  # in one cell of the grid, between its points
        got = numbers(tracker, (0, left, 201), (0, 700, 500), size=(960, 1280), side=2)
        assert got == [1, 2]


def test_boxes_are_followed_where_there_are_no_masks():
    tracker, expected = SegmentTracker(), {}
    for step in range(5):
        boxes = [(10.5 + 8 * step, 5, 60 + 8 * step, 50), (300, 5, 300.2, 5.1)]
        segments = [SceneSegment(id, 0, True, 0.9, box) for id, box in enumerate(boxes, start=1)]
        order = [0, 1] if step % 2 else [1, 0]
        scene = PanopticScene(None, tuple(segments[i] for i in order), (400, 500))
        got = [segment.id for segment in tracker.follow(scene).segments]
        expected = expected or dict(zip(order, got, strict=True))
        assert got == [expected[i] for i in order]


regions = st.builds(
    Region,
    st.integers(0, 1),
    st.booleans(),
    st.sets(st.integers(0, 40), max_size=12).map(lambda cells: np.array(sorted(cells), int)),
)


@given(before=st.lists(regions, max_size=6), now=st.lists(regions, max_size=6))
@settings(deadline=None, database=None, max_examples=60)
def test_partners_are_alike_and_nobody_has_two(before, now):
    pairs = match_regions(before, now)
    assert len(set(pairs.values())) == len(pairs)
    for i, j in pairs.items():
        mine, theirs = now[i], before[j]
        assert (mine.class_id, mine.is_thing) == (theirs.class_id, theirs.is_thing)
        if mine.is_thing:
            shared = len(np.intersect1d(mine.cells, theirs.cells))
            assert shared >= MIN_IOU * len(np.union1d(mine.cells, theirs.cells)) > 0
    # Whoever could have a free partner has one.
    for i in set(range(len(now))) - set(pairs):
        for j in set(range(len(before))) - set(pairs.values()):
            lonely = match_regions([before[j]], [now[i]])
            assert not lonely


@given(seed=st.integers(0, 1000), size=st.sampled_from([(7, 5), (50, 400), (700, 30)]))
@settings(deadline=None, database=None, max_examples=20)
def test_regions_are_the_cells_of_segments(seed, size):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 4, size).astype(np.int32)
    infos = [{"id": id, "category_id": 0, "isthing": True} for id in (1, 2, 3)]
    step = -(-max(size) // tracking.GRID_SIZE)
    for id, region in enumerate(regions_of(PanopticScene.from_panoptic(ids, infos)), start=1):
        assert np.array_equal(region.cells, np.flatnonzero(ids[::step, ::step] == id)) or (
            step > 1 and not (ids[::step, ::step] == id).any()
        )


@pytest.mark.parametrize("num", [1, 2])
def test_no_regions_have_no_partners(num):
    region = Region(0, True, np.arange(3))
    assert match_regions([], [region] * num) == match_regions([region] * num, []) == {}

"""Ids, counts and components."""

import numpy as np
import pytest
from panopticapi.utils import rgb2id
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from detr_d2.data.prepare import PreparationError
from detr_d2.data.prepare import prepared_segments as segments
from detr_d2.data.prepare.prepared_segments import (
    PreparedSegment,
    Segmentation,
    by_pixel_value,
    by_regions,
    segment_ids,
    split_into_components,
)


def test_ids_start_at_the_categorys_colour():
    colors = {1: (200, 10, 20), 7: (70, 130, 180)}
    ids = segment_ids(
        [PreparedSegment(1), PreparedSegment(7), PreparedSegment(1), PreparedSegment(1)], colors
    )
    assert ids[:2] == [rgb2id((200, 10, 20)), rgb2id((70, 130, 180))]
    assert len(set(ids)) == 4


def test_ids_of_many_segments_differ_and_are_never_void():
    """All in black, where void is, and in a second category of the same colour."""
    many = [PreparedSegment(1 + i % 2, instance=i) for i in range(9_000)]
    ids = segment_ids(many, {1: (0, 0, 0), 2: (0, 0, 0)})
    assert len(set(ids)) == len(ids) and min(ids) > 0 and max(ids) < 2**24


def test_values_of_one_segment_are_joined():
    table = {3: PreparedSegment(1), 5: None, 6: PreparedSegment(1), 70_000: PreparedSegment(2)}
    values = np.array([[3, 5, 6], [70_000, 3, 5]])
    result = by_pixel_value(values, table.__getitem__)
    assert result.segments == (PreparedSegment(1), PreparedSegment(2))
    assert result.labels.tolist() == [[1, 0, 1], [2, 1, 0]]


def test_components_touch_at_corners_too():
    generator = np.random.default_rng(0)
    for _ in range(20):
        values = generator.integers(0, 3, (7, 8))
        plain = by_pixel_value(values, lambda value: PreparedSegment(value) if value else None)
        result = split_into_components(plain, frozenset({1}))
        np.testing.assert_array_equal(result.labels == 0, values == 0)
        pixels = np.argwhere(values == 1)
        near = np.abs(pixels[:, None] - pixels[None]).max(axis=2) <= 1
        count, component = connected_components(coo_matrix(near))
        got = result.labels[values == 1]
        assert len({*zip(got.tolist(), component.tolist(), strict=True)}) == len(set(got)) == count
        assert {result.segments[label - 1].category_id for label in got} == {1}
        assert len(set(result.labels[values == 2])) == 1
        assert len(set(result.segments)) == len(result.segments) == result.labels.max()


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("min_area", [0, 1, 2, 5, 1000])
def test_small_components_are_no_instances(min_area, crowds):
    generator = np.random.default_rng(min_area)
    values = (generator.random((20, 30)) < 0.2) * generator.integers(1, 4, (20, 30))
    plain = by_pixel_value(values, lambda value: PreparedSegment(value) if value else None)
    all_of_them = split_into_components(plain, frozenset({1, 2}))
    result = split_into_components(
        plain, frozenset({1, 2}), min_area=min_area, crumbs_are_crowds=crowds
    )
    crumbs = 0
    for number, segment in enumerate(all_of_them.segments, start=1):
        pixels = all_of_them.labels == number
        (label,) = set(result.labels[pixels].tolist())
        if segment.category_id == 3 or pixels.sum() >= min_area:
            assert (result.labels == label).sum() == pixels.sum()
            kept = result.segments[label - 1]
            assert (kept.category_id, kept.iscrowd) == (segment.category_id, False)
        else:
            crumbs += 1
            assert (label > 0) == crowds
            assert not crowds or result.segments[label - 1] == PreparedSegment(
                segment.category_id, True
            )
    assert ((result.labels > 0) <= (values > 0)).all()
    found, *small = result.counts.values()
    assert found == len(all_of_them.segments) - 1 and small == ([crumbs] if crumbs else [])
    assert set(range(1, len(result.segments) + 1)) == set(result.labels.ravel().tolist()) - {0}


def test_segments_are_bounded(monkeypatch):
    monkeypatch.setattr(segments, "MAX_SEGMENTS", 3)
    board = np.arange(16).reshape(4, 4)
    with pytest.raises(PreparationError, match="16 segments in one image; 3 are allowed"):
        by_pixel_value(board, PreparedSegment)
    dots = by_pixel_value(np.kron(np.eye(4, dtype=int)[:, ::2], [[1], [0]]), PreparedSegment)
    with pytest.raises(PreparationError, match="are allowed"):
        split_into_components(dots, frozenset({0, 1}))
    nothing = Segmentation(np.zeros((1, 1), int), ())
    with pytest.raises(PreparationError, match="4 segments"):
        by_regions([None] * 4, {}, nothing)

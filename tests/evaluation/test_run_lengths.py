"""Runs of equal pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from detr_d2.evaluation.run_lengths import count_pixels, find_runs

property_test = settings(deadline=None, max_examples=300, database=None)
pairs_of_rows = arrays.arrays(np.int64, st.tuples(st.just(2), st.integers(0, 20)))


@property_test
@given(pairs_of_rows)
def test_runs_are_whole_and_cover_all_pixels(rows):
    rows %= 2
    starts, lengths = find_runs(*rows)
    np.testing.assert_array_equal(np.repeat(rows[:, starts], lengths, axis=1), rows)
    assert (lengths > 0).all()
    changes = (rows[:, 1:] != rows[:, :-1]).any(axis=0)
    assert len(starts) == changes.sum() + (rows.shape[1] > 0)


def test_one_row_and_no_pixel():
    starts, lengths = find_runs(np.array([4, 4, 4, 0, 4]))
    assert (starts.tolist(), lengths.tolist()) == ([0, 3, 4], [3, 1, 1])
    assert [len(part) for part in find_runs(np.zeros(0, int), np.zeros(0, int))] == [0, 0]


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (7, 5)])
def test_pixels_of_each_id(shape):
    ids = np.random.default_rng(0).choice([0, 3, 2**24 - 1], shape)
    expected = {value: int((ids == value).sum()) for value in np.unique(ids).tolist()}
    assert count_pixels(ids) == expected

"""Runs of equal pixels."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from detr_d2.evaluation.run_lengths import find_runs

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

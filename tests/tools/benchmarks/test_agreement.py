"""Agreement of hand-made pictures."""

import pytest
import torch
from benchmarks.agreement import Picture, equal_ids, equal_segments


def picture(rows: list[list[int]], class_of: dict[int, int]) -> Picture:
    return Picture(torch.tensor(rows), class_of)


REFERENCE = picture([[1, 1, 2, 2], [1, 1, 0, 0]], {1: 7, 2: 7})


def test_a_picture_agrees_with_itself():
    assert equal_ids(REFERENCE, REFERENCE) == equal_segments(REFERENCE, REFERENCE) == 1


def test_numbers_of_segments_matter_to_ids_alone():
    other = picture([[9, 9, 4, 4], [9, 9, 0, 0]], {9: 7, 4: 7})
    assert equal_segments(other, REFERENCE) == 1
    assert equal_ids(other, REFERENCE) == 2 / 8  # void alone


@pytest.mark.parametrize("class_of", [{1: 3, 2: 7}, {2: 7}])
def test_pixels_of_another_class_disagree(class_of):
    other = picture(REFERENCE.ids.tolist(), class_of)
    assert equal_segments(other, REFERENCE) == equal_ids(other, REFERENCE) == 4 / 8


def test_segments_are_paired_one_to_one():
    """A segment cut in two agrees by its larger part; two joined, by the larger of them."""
    cut = picture([[1, 3, 2, 2], [1, 1, 0, 0]], {1: 7, 2: 7, 3: 7})
    assert equal_segments(cut, REFERENCE) == 7 / 8
    joined = picture([[1, 1, 1, 1], [1, 1, 0, 0]], {1: 7})
    assert equal_segments(joined, REFERENCE) == 6 / 8


def test_pairs_are_the_best_of_all_and_not_those_of_the_largest_overlap():
    other = picture([[1, 1, 1, 1, 1, 2, 2, 2]], {1: 0, 2: 0})
    reference = picture([[1, 1, 1, 2, 2, 1, 1, 1]], {1: 0, 2: 0})
    assert equal_segments(other, reference) == 5 / 8  # 1 with 2, 2 with 1


def test_void_may_have_any_number_without_class():
    nothing = picture([[-1, -1, -1, -1], [-1, -1, -1, -1]], {})
    assert equal_segments(nothing, REFERENCE) == 2 / 8

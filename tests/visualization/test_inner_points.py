"""Points of labels are in their segments, far from edges, and in the middle of a wide segment."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from detr_d2.visualization.inner_points import inner_points

places_maps = arrays.arrays(
    np.uint16, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3)
)


def steps_to_others(places, row, column):
    """By definition: steps to the nearest pixel of something else, or out of the image."""
    height, width = places.shape
    others = [
        (y, x)
        for y in range(-1, height + 1)
        for x in range(-1, width + 1)
        if not (0 <= y < height and 0 <= x < width) or places[y, x] != places[row, column]
    ]
    return min(abs(y - row) + abs(x - column) for y, x in others)


@given(places=places_maps)
@settings(deadline=None, database=None, max_examples=60)
def test_no_pixel_of_a_segment_is_farther_from_its_edge(places):
    for place, point in enumerate(inner_points(places, 3), start=1):
        distances = [steps_to_others(places, *pixel) for pixel in np.argwhere(places == place)]
        if point is not None:
            assert steps_to_others(places, point[1], point[0]) == max(distances)
        assert (point is None) == (not distances)


@given(places=places_maps, scale=st.sampled_from([1, 80]))
@settings(deadline=None, database=None, max_examples=60)
def test_names_are_put_into_their_segments(places, scale):
    if scale > 1:  # on a coarser grid; some segments have one pixel, which this doesn't have
        places = places.repeat(scale, 0).repeat(scale, 1)
        places[3::scale, 5::scale] = 4
    points = inner_points(places, 5)
    for place, point in enumerate(points, start=1):
        assert (point is None) == (not (places == place).any())
        if point is not None:
            assert places[point[1], point[0]] == place


def test_names_are_put_far_from_edges():
    places = np.ones((101, 201), np.uint16)
    places[:, 100:] = 2
    places[48:53, 40:60] = 3
    left, right, _ = inner_points(places, 3)
    assert abs(right[0] - 150) < 6 and abs(right[1] - 50) < 6
    assert not (35 < left[0] < 65 and 43 < left[1] < 58)


def test_names_are_put_in_the_middle_of_wide_segments():
    places = np.ones((41, 300), np.uint16)
    assert inner_points(places, 1) == [(150, 20)] or inner_points(places, 1) == [(149, 20)]

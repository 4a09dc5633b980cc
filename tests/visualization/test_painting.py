"""Fills and outlines agree with the map of segments in every pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from detr_d2.visualization.painting import colored, outline_mask, outline_width, paint_segments

QUICK = settings(deadline=None, database=None, max_examples=60)
places_maps = arrays.arrays(
    np.uint16, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3)
)


def outline_by_definition(places, width):
    found = np.zeros(places.shape, bool)
    for y, x in np.ndindex(places.shape):
        for other_y, other_x in np.ndindex(places.shape):
            near = abs(y - other_y) + abs(x - other_x) <= width
            found[y, x] |= bool(near and places[y, x] and places[y, x] != places[other_y, other_x])
    return found


@given(places=places_maps, width=st.integers(1, 3))
@QUICK
def test_outlines_are_the_pixels_beside_others(places, width):
    assert np.array_equal(outline_mask(places, width), outline_by_definition(places, width))


@given(places=places_maps, seed=st.integers(0, 99))
@QUICK
def test_nothing_bleeds(places, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*places.shape, 3), dtype=np.uint8)
    fills, outlines = rng.integers(0, 256, (2, 4, 3), dtype=np.uint8)
    before = image.copy()
    painted = paint_segments(image, places, fills, outlines, 0.5)
    assert np.array_equal(image, before)
    edges = outline_mask(places, 1)
    assert np.array_equal(painted[places == 0], image[places == 0])
    assert np.array_equal(painted[edges], outlines[places[edges]])
    inside = (places > 0) & ~edges
    expected = (image[inside].astype(float) + fills[places[inside]]) / 2
    assert np.abs(painted[inside] - expected).max(initial=0) <= 0.5


def test_holes_stay_holes_and_have_outlines():
    places = np.zeros((40, 40), np.uint16)
    places[5:35, 5:35] = 1
    places[15:25, 15:25] = 0
    image = np.full((40, 40, 3), 77, np.uint8)
    red, white = np.array([[0, 0, 0], [200, 0, 0]], np.uint8), np.full((2, 3), 255, np.uint8)
    painted = paint_segments(image, places, red, white, 0.5)
    assert (painted[15:25, 15:25] == 77).all() and (painted[:5] == 77).all()
    assert (painted[14, 14:26] == 255)[1:-1].all() and (painted[5, 5:35] == 255).all()
    assert (painted[8:12, 8:32] == painted[8, 8]).all() and painted[8, 8, 0] > 100


@pytest.mark.parametrize("num", [3, 256, 257, 70_000 // 2])
def test_any_number_of_colours(num):
    table = np.random.default_rng(0).integers(0, 256, (num, 3), dtype=np.uint8)
    places = np.array([[0, 1, num - 1], [2, num // 2, num - 2]], np.uint16)
    assert np.array_equal(colored(places, table), table[places])


def test_outlines_grow_with_the_picture():
    assert [outline_width(size) for size in [(1, 1), (480, 640), (1080, 1920)]] == [1, 1, 2]

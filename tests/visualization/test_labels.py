"""Labels: inside the picture, none on another, legible, in any alphabet."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_d2.visualization.labels import Label, draw_labels, font_size, free_rectangle

BLUE = np.array([0.0, 0.0, 200.0])


@given(
    points=st.lists(st.tuples(st.floats(-50, 400), st.floats(-50, 300)), max_size=12),
    size=st.tuples(st.integers(1, 120), st.integers(1, 30)),
    centered=st.booleans(),
)
@settings(deadline=None, database=None, max_examples=80)
def test_labels_are_inside_and_apart(points, size, centered):
    taken = []
    for point in points:
        label = Label("", point, BLUE, centered)
        rectangle = free_rectangle(label, size, (300, 200), taken)
        if rectangle is None:
            continue
        left, upper, right, lower = rectangle
        assert 0 <= left < right <= 300 and 0 <= upper < lower <= 200
        assert (right - left, lower - upper) == size
        for other in taken:
            assert left >= other[2] or other[0] >= right or upper >= other[3] or other[1] >= lower
        taken.append(rectangle)
    assert bool(taken) == bool(points)


def test_white_text_stands_out_on_its_ground():
    for colour in (BLUE, np.array([255.0, 255, 240]), np.zeros(3)):
        picture = np.full((60, 200, 3), 255, np.uint8)
        draw_labels(picture, [Label("person 97%", (100, 30), colour)])
        changed = (picture != 255).any(-1)
        rows, columns = np.nonzero(changed)
        part = picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert 20 < part.shape[1] < 200 and part.max() == 255
        # Most of it is ground, and a third as bright as the ink at most.
        assert np.median(part.mean(-1)) < 130
        assert abs(columns.mean() - 100) < 10 and abs(rows.mean() - 30) < 5


def test_other_alphabets_are_drawn():
    drawn = []
    for text in ("Löwe", "кошка", "γάτα", "\u65e5\u672c", ""):
        picture = np.zeros((40, 120, 3), np.uint8)
        draw_labels(picture, [Label(text, (60, 20), BLUE)])
        drawn.append(picture)
    assert all((picture > 0).any() for picture in drawn)
    assert (drawn[1] != drawn[2]).any()


def test_labels_without_room_are_left_out_and_tiny_pictures_do_no_harm():
    picture = np.zeros((20, 120, 3), np.uint8)
    labels = [Label("one", (60, 10), BLUE), Label("two", (60, 10), BLUE)]
    draw_labels(picture, labels[:1])
    once = picture.copy()
    draw_labels(picture := np.zeros_like(picture), labels)
    assert np.array_equal(picture, once)
    draw_labels(np.zeros((1, 1, 3), np.uint8), labels)


def test_letters_grow_with_the_picture():
    assert font_size((60, 80)) == 13
    assert font_size((1080, 1920)) == 26

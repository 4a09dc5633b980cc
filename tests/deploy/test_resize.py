"""Sizes and pixels beside those of Detectron2's transforms, which training and evaluation use."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_d2.data.dataset_mapper import ResizeShortestEdge
from detr_d2.deploy.resize import network_size, resize_ids, resize_image
from detr_d2.modeling.upsampling import nearest_pixels

sides = st.integers(1, 4000)


@settings(deadline=None, database=None, max_examples=500)
@given(sides, sides, st.integers(0, 1200), st.integers(1, 2000))
def test_sizes_are_those_of_the_transform(height, width, min_size, max_size):
    # A view of one byte stands for the pixels.
    image = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (height, width, 3))
    transform = ResizeShortestEdge(min_size, max_size).get_transform(image)
    expected = (transform.new_h, transform.new_w) if min_size else (height, width)
    assert network_size(height, width, min_size, max_size) == expected


@pytest.mark.parametrize("height, width", [(1, 1), (7, 90), (48, 64), (64, 48), (33, 57)])
@pytest.mark.parametrize("min_size, max_size", [(0, 10), (20, 40), (48, 100), (61, 73)])
def test_pixels_are_those_of_the_transform(height, width, min_size, max_size):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = ResizeShortestEdge(min_size, max_size).get_transform(image).apply_image(image)
    size = network_size(height, width, min_size, max_size)
    np.testing.assert_array_equal(resize_image(image, size), expected)


@settings(deadline=None, database=None, max_examples=50)
@given(*[st.integers(1, 150)] * 4)
def test_ids_take_the_pixels_that_masks_take(height, width, new_height, new_width):
    ids = np.arange(height * width, dtype=np.int32).reshape(height, width)
    rows, columns = nearest_pixels(height, new_height), nearest_pixels(width, new_width)
    expected = ids[rows.numpy()][:, columns.numpy()]
    np.testing.assert_array_equal(resize_ids(ids, (new_height, new_width)), expected)

"""The RLE of all segments at once equals that of pycocotools for each mask."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from detr_d2.evaluation.segment_rles import encode_segments

property_test = settings(deadline=None, max_examples=300, database=None)
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
id_maps = arrays.arrays(np.int32, sizes, elements=st.sampled_from([0, 1, 7, 2**24 - 1]))


def assert_equals_the_encoder(ids: np.ndarray) -> None:
    encoded = encode_segments(ids)
    assert encoded.keys() == set(ids.ravel().tolist()) - {0}
    for segment_id, rle in encoded.items():
        assert rle == mask_util.encode(np.asfortranarray(ids == segment_id, dtype=np.uint8))


@property_test
@given(id_maps)
def test_segments_are_encoded_like_their_masks(ids):
    assert_equals_the_encoder(ids)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (slice(None), slice(None)),
        (slice(0, 1), slice(0, 1)),
        (slice(-1, None), slice(-1, None)),
        (slice(None), slice(-1, None)),
        (slice(None), slice(0, 1)),
        (slice(2, 3), slice(None)),
        (slice(0, 0), slice(None)),
    ],
    ids=["all", "first", "last", "last column", "first column", "a row", "none"],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_segments_at_the_border(rows, columns, order):
    ids = np.zeros((5, 6), np.int32, order=order)
    ids[rows, columns] = 70_000
    assert_equals_the_encoder(ids)

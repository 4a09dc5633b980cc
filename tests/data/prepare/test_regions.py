"""Polygons and RLEs are checked before they reach C code."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from detr_d2.data.prepare import PreparationError, regions
from detr_d2.data.prepare.regions import check_encoded, polygons_rle, region_rle

masks = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 1)
)


@given(masks)
@settings(deadline=None, database=None)
def test_compressed_rles_are_what_pycocotools_writes(mask):
    rle = coco_mask.encode(np.asfortranarray(mask))
    text = {"size": list(mask.shape), "counts": rle["counts"].decode()}
    np.testing.assert_array_equal(coco_mask.decode(region_rle(text, *mask.shape)), mask)


def test_large_run_lengths():
    mask = np.zeros((3000, 3000), np.uint8)
    mask[5, 7] = mask[2000, 2000:] = 1
    rle = coco_mask.encode(np.asfortranarray(mask))
    text = {"size": [3000, 3000], "counts": rle["counts"].decode()}
    np.testing.assert_array_equal(coco_mask.decode(region_rle(text, 3000, 3000)), mask)


@given(st.text("\x00 /0123456789:;<=>?@OPQno`\x7fä", max_size=12))
@settings(deadline=None, database=None, max_examples=300)
def test_any_text_is_a_whole_mask_or_an_error(text):
    try:
        rle = region_rle({"size": [3, 4], "counts": text}, 3, 4)
    except PreparationError:
        return
    mask = coco_mask.decode(rle)
    assert set(mask.ravel().tolist()) <= {0, 1} and mask.sum() == coco_mask.area(rle)
    assert region_rle({"size": [3, 4], "counts": rle["counts"].decode()}, 3, 4) == rle


@pytest.mark.parametrize("text", ["", "P", "0P", "\x00", "ä", "<\x7f", "PPPPPPPP0", "<0 "])
def test_texts_that_are_no_rle(text):
    with pytest.raises(PreparationError, match="its RLE"):
        region_rle({"size": [3, 4], "counts": text}, 3, 4)


def test_numbers_that_would_not_fit_pycocotools():
    """Twelve, with zeros in front of it."""
    for zeros in (0, 5):
        text = "\\" + "P" * zeros + "0"
        assert coco_mask.area(region_rle({"size": [3, 4], "counts": text}, 3, 4)) == 0
    with pytest.raises(PreparationError, match="too large"):
        region_rle({"size": [3, 4], "counts": "\\PPPPPPP0"}, 3, 4)


@pytest.mark.parametrize("counts", [[], [12.0], [True] * 12, ["12"], [None], [2**70], {"a": 1}])
def test_counts_that_are_no_numbers(counts):
    with pytest.raises(PreparationError, match="whole numbers or a text"):
        region_rle({"size": [3, 4], "counts": counts}, 3, 4)


def test_an_rle_that_ends_early_would_show_what_was_in_memory():
    """Why counts are added up: pycocotools takes these."""
    rle = coco_mask.frPyObjects({"size": [3, 4], "counts": [2, 3]}, 3, 4)
    assert coco_mask.decode(rle).shape == (3, 4)
    with pytest.raises(PreparationError, match="don't add up to the image's 12 pixels"):
        region_rle({"size": [3, 4], "counts": [2, 3]}, 3, 4)


def test_polygons_are_joined():
    rle = polygons_rle([[0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 3, 1, 3, 3, 1, 3]], 4, 4)
    expected = [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert coco_mask.decode(rle).tolist() == expected


def test_polygons_may_reach_a_little_outside():
    rle = polygons_rle([[-3, -3, 7, -3, 7, 7, -3, 7]], 4, 4)
    assert coco_mask.area(rle) == 16


def test_outlines_are_bounded(monkeypatch):
    monkeypatch.setattr(regions, "MAX_OUTLINE", 20)
    box = [0, 0, 4, 0, 4, 4, 0, 4]
    assert coco_mask.area(polygons_rle([box], 4, 4)) == 16
    with pytest.raises(PreparationError, match="an outline of 32 pixels; 20 are allowed"):
        polygons_rle([box, box], 4, 4)


def test_regions_of_an_image_are_bounded(monkeypatch):
    monkeypatch.setattr(regions, "MAX_ENCODED", 5)
    assert check_encoded(2, {"counts": b"abc"}) == 5
    with pytest.raises(PreparationError, match="more than 5 bytes"):
        check_encoded(3, {"counts": b"abc"})

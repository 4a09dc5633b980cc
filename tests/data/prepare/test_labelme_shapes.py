"""Shapes as pixels."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from detr_d2.data.prepare import PreparationError
from detr_d2.data.prepare.labelme_shapes import shape_rle

HEIGHT, WIDTH = 8, 10


def pixels(shape_type, points, **more) -> np.ndarray:
    shape = {"shape_type": shape_type, "points": points, **more}
    return coco_mask.decode(shape_rle(shape, HEIGHT, WIDTH))


def png(mask: np.ndarray, mode=None, kind="PNG") -> str:
    file = io.BytesIO()
    image = Image.fromarray(np.asarray(mask, np.uint8))
    (image if mode is None else image.convert(mode)).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("kind", ["rectangle", "rotation", "polygon"])
def test_four_points_are_the_outline(kind):
    upright = pixels(kind, [[2, 1], [7, 1], [7, 5], [2, 5]])
    assert upright.tolist() == pixels("rectangle", [[7, 1], [2, 5]]).tolist()
    diamond = [[5, 0], [9, 4], [5, 8], [1, 4]]
    assert pixels(kind, diamond).tolist() == pixels("polygon", diamond).tolist()


@pytest.mark.parametrize("mode", [None, "1", "P", "RGB", "LA", "RGBA"])
@pytest.mark.parametrize("outer", [0, 1])
def test_masks_lie_in_their_boxes(mode, outer):
    """Their corners are the first and last pixels, or where the last pixels end."""
    mask = np.array([[255, 0, 255], [255, 255, 0]])
    box = [[4, 2], [6 + outer, 3 + outer]]
    expected = np.zeros((HEIGHT, WIDTH), int)
    expected[2:4, 4:7] = mask != 0
    for points in (box, box[::-1]):
        assert pixels("mask", points, mask=png(mask, mode)).tolist() == expected.tolist()


def test_masks_of_ones():
    assert pixels("mask", [[0, 0], [1, 1]], mask=png(np.ones((2, 2)))).sum() == 4


@given(
    mask=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=2, max_size=9),
    x=st.integers(-8, 18),
    y=st.integers(-8, 8),
)
@settings(deadline=None, database=None, max_examples=60)
def test_masks_may_reach_outside(mask, x, y):
    corners = [[x, y], [x + 2, y + len(mask) - 1]]
    seen = np.zeros((HEIGHT, WIDTH), int)
    for row, values in enumerate(mask):
        for column, value in enumerate(values):
            if value and 0 <= y + row < HEIGHT and 0 <= x + column < WIDTH:
                seen[y + row, x + column] = 1
    encoded = png(np.array(mask) * 255)
    assert pixels("mask", corners, mask=encoded).tolist() == seen.tolist()


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (None, "it has no mask"),
        ("", "it has no mask"),
        ([[1]], "it has no mask"),
        ("x", "no PNG in base64"),
        ("äöü=", "no PNG in base64"),
        (base64.b64encode(b"nothing").decode(), "no PNG in base64"),
        (png(np.ones((2, 2)))[:40], "no PNG in base64"),
        (png(np.ones((2, 4))), "its mask has 4×2 pixels, its corners are 1×1 apart"),
        (png(np.ones((4, 2))), "its mask has 2×4 pixels"),
    ],
)
def test_broken_masks(mask, said):
    with pytest.raises(PreparationError) as caught:
        pixels("mask", [[0, 0], [1, 1]], mask=mask)
    assert said in str(caught.value)

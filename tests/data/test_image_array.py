"""Arrays that are given as images: taken as they are, converted, or refused."""

import numpy as np
import pytest
import torch

from detr_d2.data.image_array import to_uint8_colors

IMAGE = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
IMAGE[0, :2] = [[0], [255]]
GREY = IMAGE[..., 0]


def test_images_are_passed_on():
    assert to_uint8_colors(IMAGE) is IMAGE or np.shares_memory(to_uint8_colors(IMAGE), IMAGE)


@pytest.mark.parametrize("dtype", ["i2", "u4", "i8", "f2", "f4", "f8", ">i4"])
def test_other_types_in_the_same_range_mean_the_same(dtype):
    assert np.array_equal(to_uint8_colors(IMAGE.astype(dtype)), IMAGE)


def test_fractions_are_rounded():
    for almost in (IMAGE + np.where(IMAGE < 255, 0.4, 0), IMAGE - np.where(IMAGE > 0, 0.4, 0)):
        assert np.array_equal(to_uint8_colors(almost), IMAGE)


def test_of_16_bits_the_upper_8_are_taken():
    deep = IMAGE.astype(np.uint16) * 256 + 200
    assert np.array_equal(to_uint8_colors(deep), IMAGE)


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 1)])
def test_grey_becomes_colours(shape):
    expected = np.stack([GREY] * 3, axis=2)
    assert np.array_equal(to_uint8_colors(GREY.reshape(shape)), expected)


def test_transparency_is_dropped():
    assert np.array_equal(to_uint8_colors(np.dstack([IMAGE, GREY])), IMAGE)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "i8"])
def test_black_is_black_in_every_type(dtype):
    assert not to_uint8_colors(np.zeros((2, 3, 3), dtype)).any()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "cv2.imread returns None"),
        ("image.jpg", "not str"),
        (IMAGE.tolist(), "not list"),
        (torch.from_numpy(IMAGE), "not Tensor"),
        (IMAGE[:0], r"no pixels: its shape is \(0, 9, 3\)"),
        (IMAGE[..., :0], "no pixels"),
        (IMAGE.transpose(2, 0, 1), r"3×7×9. Channels come last: image.transpose\(1, 2, 0\)"),
        (IMAGE[..., :2], "H×W×3, not 7×9×2"),
        (IMAGE[None], "1×7×9×3. Give one image at a time"),
        (IMAGE[0, 0], "not 3"),
        (IMAGE > 5, "not bool"),
        (IMAGE.astype(complex), "not complex128"),
        (IMAGE.astype(object), "not object"),
        (IMAGE / 255, r"in 0.0 … 1.0, which is black .* give 255 \* image"),
        (IMAGE.astype(np.uint16), r"uint16, but none .* above 255: .*astype\(np.uint8\)"),
        (IMAGE.astype(float) - 300, "these are float64 in -300"),
        (IMAGE.astype(int) + 1, "these are int64 in"),
        (np.full((2, 2, 3), np.nan), "these are float64 in nan"),
        (np.full((2, 2, 3), np.inf), "these are float64 in inf"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        to_uint8_colors(image)


def test_the_array_is_left_alone():
    for image in (IMAGE.astype(float), IMAGE.astype(np.uint16) * 257, np.dstack([IMAGE, GREY])):
        kept = image.copy()
        to_uint8_colors(image)
        assert np.array_equal(image, kept)

"""Images of more than 8 bits: black to white in the range that is said, whatever the file."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from detr_d2.data.deep_pixels import scale_to_8_bits
from detr_d2.data.image_array import to_uint8_colors
from detr_d2.data.image_file import ImageOptions, read_image, read_measured

# H×W×3, 12 bits.
COLORS = np.random.default_rng(0).integers(0, 4096, (40, 90, 3), dtype=np.uint16)
GREY = COLORS[..., 0]
TWELVE = ImageOptions(deep_range=4095)


def tiff_of_12_bits(values: np.ndarray) -> bytes:
    """Two pixels in three bytes."""
    height, width = values.shape
    pairs = values.reshape(-1, 2).astype(np.uint32)
    packed = (pairs[:, 0] << 12 | pairs[:, 1]).astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:]
    tags = [
        *((256, width), (257, height), (258, 12), (259, 1), (262, 1)),
        *((273, 8 + 2 + 9 * 12 + 4), (277, 1), (278, height), (279, packed.size)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + packed.tobytes()


def png_of_grey_and_transparency(values: np.ndarray) -> bytes:
    height, width = values.shape
    rows = np.dstack([values, values]).astype(">u2").reshape(height, -1).view(np.uint8)
    filters = np.zeros((height, 1), np.uint8)
    header = struct.pack(">IIBBBBB", width, height, 16, 4, 0, 0, 0)
    data = zlib.compress(np.hstack([filters, rows]).tobytes())
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


@pytest.mark.parametrize("bits", range(8, 17))
def test_of_any_number_of_bits_the_upper_8_are_taken(bits):
    values = np.arange(2**bits, dtype=np.uint32).astype(np.uint16)
    assert np.array_equal(scale_to_8_bits(values, 2**bits - 1), values >> (bits - 8))


@pytest.mark.parametrize("deep_range", [255, 1000, 4095, 10_000, 65_535])
def test_any_range_is_filled_and_what_is_above_is_white(deep_range):
    scaled = scale_to_8_bits(np.arange(65_536, dtype=np.uint32).astype(np.uint16), deep_range)
    steps = np.diff(scaled[: deep_range + 1].astype(int))
    assert scaled[0] == 0 and (scaled[deep_range:] == 255).all() and set(steps) <= {0, 1}


@pytest.mark.parametrize("name", ["x.png", "lzw.tif", "raw.tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_12_bits_of_16_are_seen_whole(tmp_path, name, channels):
    """In grey, in colours, of which Pillow gives the upper bytes alone, and with transparency."""
    colors = np.dstack([COLORS, GREY])[..., :channels]
    stored = colors[..., [2, 1, 0, 3][:channels]] if channels > 1 else colors
    compression = [cv2.IMWRITE_TIFF_COMPRESSION, 1 if name == "raw.tif" else 5]
    cv2.imwrite(str(tmp_path / name), stored, compression if name.endswith("tif") else [])
    expected = np.broadcast_to(colors[..., :3] >> 4, COLORS.shape)
    image, highest = read_measured(tmp_path / name, TWELVE)
    assert np.array_equal(image, expected) and highest == colors[..., :3].max()
    assert np.array_equal(read_image(tmp_path / name, "BGR", TWELVE), expected[..., ::-1])
    # As without the option: nearly black. What is measured is the truth, or a little above it.
    image, highest = read_measured(tmp_path / name)
    assert image.max() <= 15 and colors[..., :3].max() <= highest <= 4095


def test_big_endian_tiffs_and_turned_images(tmp_path):
    path = tmp_path / "x.tif"
    tags = Image.Exif()
    tags[0x112] = 6
    big = Image.frombytes("I;16B", (90, 40), GREY.astype(">u2").tobytes())
    big.save(path, exif=tags)
    expected = np.dstack([np.rot90(GREY >> 4, -1)] * 3)
    assert np.array_equal(read_image(path, "RGB", TWELVE), expected)


def test_formats_that_tell_their_range_keep_it(tmp_path):
    header = b"P5\n90 40\n4095\n"
    (tmp_path / "x.pgm").write_bytes(header + GREY.astype(">u2").tobytes())
    (tmp_path / "x.tif").write_bytes(tiff_of_12_bits(GREY))
    for name in ("x.pgm", "x.tif"):
        for options in (ImageOptions(), TWELVE, ImageOptions(deep_range=1023)):
            image = read_image(tmp_path / name, "RGB", options)[..., 0].astype(int)
            assert abs(image - (GREY >> 4)).max() <= 1, name
    Image.fromarray((GREY >> 4).astype(np.uint8)).save(tmp_path / "x.png")
    assert np.array_equal(read_image(tmp_path / "x.png", "RGB", TWELVE)[..., 0], GREY >> 4)


def test_files_of_which_only_the_upper_bytes_can_be_had_are_refused(tmp_path):
    """Grey with transparency: as it is, it can be read; with another range, it can't."""
    path = tmp_path / "x.png"
    path.write_bytes(png_of_grey_and_transparency(GREY))
    assert np.array_equal(read_image(path, "RGB")[..., 0], GREY >> 8)
    with pytest.raises(ValueError, match=r"x\.png: .*INPUT.DEEP_RANGE 4095 can't be applied"):
        read_image(path, "RGB", TWELVE)


@pytest.mark.parametrize("image", [GREY, GREY[..., None], COLORS, np.dstack([COLORS, GREY])])
def test_arrays_are_taken_as_files_are(image):
    expected = np.broadcast_to(np.atleast_3d(image)[..., :3] >> 4, COLORS.shape)
    assert np.array_equal(to_uint8_colors(image, 4095), expected)
    assert np.array_equal(to_uint8_colors(image), expected >> 4)


def test_8_bits_in_16_are_taken_where_they_are_said_to_be():
    image = (COLORS >> 4).astype(np.uint16)
    with pytest.raises(ValueError, match="none of its values is above 255"):
        to_uint8_colors(image)
    assert np.array_equal(to_uint8_colors(image, 255), image)

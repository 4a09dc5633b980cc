"""Label images and sizes."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from detr_d2.data.image_file import MAX_IMAGE_PIXELS
from detr_d2.data.prepare import PreparationError
from detr_d2.data.prepare.source_images import image_size, read_label_image


def bomb(path, width, height):
    """A PNG whose header promises more than there is."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


@pytest.mark.parametrize(
    ("dtype", "ending"), [(np.uint8, "png"), (np.uint16, "png"), (np.int32, "tif")]
)
def test_pixels_are_numbers(dtype, ending, write_png):
    values = np.linspace(0, np.iinfo(dtype).max, 12).astype(dtype).reshape(3, 4)
    np.testing.assert_array_equal(read_label_image(write_png(f"a.{ending}", values, dtype)), values)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "1"])
def test_colours_are_no_numbers(mode, tmp_path):
    Image.new(mode, (4, 3)).save(tmp_path / "a.png")
    with pytest.raises(PreparationError, match=rf"a\.png: .*\(its pixels .* mode '{mode}'"):
        read_label_image(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(12_000, 12_000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
@pytest.mark.parametrize("read", [read_label_image, image_size])
def test_huge_pictures_are_not_decoded(read, size, tmp_path):
    assert size[0] * size[1] > MAX_IMAGE_PIXELS
    bomb(tmp_path / "a.png", *size)
    with pytest.raises(PreparationError, match=r"a\.png: .*more than the .* pixels that are"):
        read(tmp_path / "a.png")


def test_broken_files(write_png, tmp_path):
    whole = write_png("a.png", np.random.default_rng(0).integers(0, 255, (50, 50))).read_bytes()
    bomb(tmp_path / "short.png", 100, 100)
    (tmp_path / "cut.png").write_bytes(whole[:-300])
    (tmp_path / "empty.png").touch()
    (tmp_path / "photo.png").write_bytes(b"\xff\xd8\xff\xe0" + bytes(40))
    (tmp_path / "folder.png").mkdir()
    for name in ("short.png", "cut.png", "empty.png", "photo.png", "folder.png"):
        with pytest.raises(PreparationError, match=rf"{name}: cannot be read as a picture"):
            read_label_image(tmp_path / name)
    for read in (read_label_image, image_size):
        with pytest.raises(PreparationError, match=r"No such file .*gone\.png"):
            read(tmp_path / "gone.png")


def test_formats_that_lose_values_are_refused(tmp_path):
    Image.new("L", (4, 3)).save(tmp_path / "a.png", format="JPEG")
    with pytest.raises(PreparationError, match=r"a\.png: .* the format JPEG, and not a PNG"):
        read_label_image(tmp_path / "a.png")


def test_photographs_are_turned_as_their_exif_data_says(tmp_path):
    for orientation in range(1, 9):
        image = Image.new("RGB", (5, 3))
        exif = image.getexif()
        exif[0x0112] = orientation
        for name in ("a.jpg", "a.tif"):
            image.save(tmp_path / name, exif=exif)
            assert image_size(tmp_path / name) == ((3, 5) if orientation < 5 else (5, 3))

"""Image files of all kinds: exactly Detectron2's pixels where it reads them well."""

import ast
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import detection_utils
from PIL import Image

from detr_d2.data import image_file
from detr_d2.data.image_file import (
    MAX_IMAGE_PIXELS,
    ImageOptions,
    decode_image,
    explain_size,
    read_image,
    read_sizes,
)

RGB = np.random.default_rng(0).integers(0, 256, (13, 9, 3), dtype=np.uint8)
DEEP = np.random.default_rng(1).integers(0, 65_536, (13, 9), dtype=np.uint16)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x112] = orientation
    return tags


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises pixels, and has none."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", size), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *[(mode, "png") for mode in ("RGB", "L", "P", "RGBA", "LA", "1")],
        *[(mode, "jpg") for mode in ("RGB", "L", "CMYK")],
        *[("RGB", suffix) for suffix in ("tif", "webp", "bmp", "ppm", "jp2")],
        ("P", "gif"),
        ("CMYK", "tif"),
    ],
)
def test_pixels_are_those_of_detectron2(tmp_path, mode, suffix, order):
    path = str(tmp_path / f"x.{suffix}")
    Image.fromarray(RGB).convert(mode).save(path)
    image = read_image(path, order)
    assert image.dtype == np.uint8 and image.shape == (13, 9, 3)
    assert np.array_equal(image, detection_utils.read_image(path, format=order))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(10))
def test_images_are_turned_upright(tmp_path, suffix, orientation):
    path = str(tmp_path / f"x.{suffix}")
    Image.fromarray(RGB).save(path, exif=exif(orientation))
    image = read_image(path, "RGB")
    assert image.shape == ((9, 13, 3) if 5 <= orientation <= 8 else (13, 9, 3))
    assert np.array_equal(image, detection_utils.read_image(path, format="RGB"))


@pytest.mark.parametrize("orientation", range(10))
def test_tiffs_are_turned_once(tmp_path, orientation):
    """Pillow turns them itself, after which Detectron2 turns them again."""
    images = []
    for name in ("x.tif", "x.png"):
        Image.fromarray(RGB).save(tmp_path / name, exif=exif(orientation))
        images.append(read_image(tmp_path / name, "RGB"))
    assert np.array_equal(*images)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_can_be_ignored(tmp_path, suffix, orientation):
    """TIFFs, which Pillow turns while it reads them, are turned back."""
    quality = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    for name, tags in (("x", exif(orientation)), ("plain", Image.Exif())):
        Image.fromarray(RGB).save(tmp_path / f"{name}.{suffix}", exif=tags, **quality)
    image = read_image(tmp_path / f"x.{suffix}", "RGB", ImageOptions(ignore_exif=True))
    assert np.array_equal(image, read_image(tmp_path / f"plain.{suffix}", "RGB"))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(10))
def test_sizes_are_told_without_reading(tmp_path, suffix, orientation):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(RGB).save(path, exif=exif(orientation))
    expected = tuple(
        read_image(path, "RGB", ImageOptions(ignore_exif=ignored)).shape[:2]
        for ignored in (True, False)
    )
    assert read_sizes(path) == expected and expected[0] == (13, 9)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_sizes_that_exif_alone_explains(tmp_path, suffix):
    path, usual, ignoring = tmp_path / f"x.{suffix}", ImageOptions(), ImageOptions(ignore_exif=True)
    Image.fromarray(RGB).save(path, exif=exif(6))
    assert "set INPUT.IGNORE_EXIF True" in explain_size(path, (9, 13), (13, 9), usual)
    assert "set it to False" in explain_size(path, (13, 9), (9, 13), ignoring)
    for expected in ((9, 13), (9, 12), (26, 18)):
        assert explain_size(path, (9, 13), expected, usual) == ""
    for orientation in (1, 3):  # upright, and on its head
        Image.fromarray(RGB).save(path, exif=exif(orientation))
        assert explain_size(path, (13, 9), (9, 13), usual) == ""


def test_all_of_the_package_read_as_the_config_says():
    """Whoever reads an image says how: else one part would see another image than the others."""
    package = Path(image_file.__file__).parents[1]
    calls = [
        (file, call)
        for file in package.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "read_image"
    ]
    assert len(calls) > 5
    assert [file.name for file, call in calls if len(call.args) != 3] == []


def test_the_order_of_channels(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "x.png")
    assert np.array_equal(read_image(tmp_path / "x.png", "RGB"), RGB)
    assert np.array_equal(read_image(tmp_path / "x.png", "BGR"), RGB[:, :, ::-1])


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path, suffix, orientation):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(DEEP).save(path, exif=exif(orientation))
    expected = (DEEP // 256).astype(np.uint8)
    expected = np.rot90(expected, -1) if orientation == 6 else expected
    assert np.array_equal(read_image(path, "RGB"), np.stack([expected] * 3, axis=2))


def test_16_bits_are_the_same_in_grey_and_in_colours_and_of_all_formats(tmp_path):
    expected = np.stack([DEEP // 256] * 3, axis=2)
    cv2.imwrite(str(tmp_path / "x.png"), np.stack([DEEP] * 3, axis=2))
    (tmp_path / "x.pgm").write_bytes(b"P5\n9 13\n65535\n" + DEEP.astype(">u2").tobytes())
    for name in ("x.png", "x.pgm"):
        assert np.array_equal(read_image(tmp_path / name, "RGB"), expected)


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    frames = [Image.new("RGB", (4, 5), color) for color in ((250, 0, 0), (0, 250, 0))]
    for name in ("x.gif", "x.webp", "x.tif", "x.png"):
        options = {"lossless": True} if name == "x.webp" else {}
        path = tmp_path / name
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert (read_image(path, "RGB") == (250, 0, 0)).all()


def test_the_suffix_does_not_matter(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "x.txt", "PNG")
    assert np.array_equal(read_image(tmp_path / "x.txt", "RGB"), RGB)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # of Pillow
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tif", "bmp"])
def test_truncated_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    large = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(large).save(path)
    content = path.read_bytes()
    for length in (0, 1, 20, len(content) // 2, len(content) - 100):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=rf"x\.{suffix}: cannot be read as an image .*Replace"):
            read_image(path, "RGB")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"no picture", "none of BMP, GIF, JPEG"),
        # Which Pillow would have another program run.
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "none of BMP"),
        (png_header(12_000, 12_000), r"12000×12000, more than the 134,217,728 pixels"),
        (png_header(MAX_IMAGE_PIXELS + 1, 1), "134217729×1, more than"),
        (png_header(20_000, 20_000), "more than the 134,217,728 pixels"),
        (png_header(2**31 - 1, 2**31 - 1), "more than the 134,217,728 pixels"),
        (png_header(0, 5), ""),
        (png_header(5, 0), ""),
    ],
    ids=["empty", "text", "EPS", *(f"size{number}" for number in range(6))],
)
def test_what_is_no_image_is_refused(tmp_path, content, reason):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\.png: cannot be read as an image \(.*{reason}"):
        read_image(path, "RGB")


def test_too_large_images_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(png_header(12_000, 12_000))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="more than"):
        read_image(tmp_path / "x.png", "RGB")


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_range_are_refused(tmp_path, mode):
    Image.new(mode, (3, 4)).save(tmp_path / "x.tif")
    with pytest.raises(
        ValueError, match=r"x\.tif: .*pixels have 32 bits.*save it with 8 or 16 bits"
    ):
        read_image(tmp_path / "x.tif", "RGB")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_image(tmp_path / "none.png", "RGB")
    with pytest.raises(ValueError, match="it is a folder"):
        read_image(tmp_path, "RGB")
    with pytest.raises(ValueError, match="null byte"):
        read_image(f"{tmp_path}/a\0b.png", "RGB")


def test_images_in_memory(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    data = path.read_bytes()
    np.testing.assert_array_equal(np.asarray(decode_image(data)), RGB)
    for broken, said in (
        (data[: len(data) // 2], "truncated"),
        (b"", "the file is empty"),
        (b"text", "none of"),
        (png_header(2**20, 2**20), "pixels that are allowed"),
    ):
        with pytest.raises(ValueError, match=said):
            decode_image(broken)

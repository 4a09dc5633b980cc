"""Segment ids in the colours of a PNG."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from panopticapi.utils import rgb2id
from PIL import Image

from detr_d2.data.panoptic_png import (
    MAX_SEGMENT_ID,
    id_of_color,
    read_panoptic_png,
    write_panoptic_png,
)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32])
def test_all_ids_survive(tmp_path, dtype):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2**24, (37, 53)).astype(dtype)
    ids[0, :6] = [0, 1, 255, 256, 65536, 2**24 - 1]
    write_panoptic_png(ids, tmp_path / "x.png")
    read = read_panoptic_png(tmp_path / "x.png")
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, ids)
    # The reference's own reading of the file.
    np.testing.assert_array_equal(rgb2id(np.asarray(Image.open(tmp_path / "x.png"))), ids)


@pytest.mark.parametrize("largest", [0, 1, 255, 256, 65535, 65536, MAX_SEGMENT_ID])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (30, 41)])
def test_written_files_are_whole_to_other_readers(tmp_path, largest, shape):
    """Ids of one, two and three bytes, in long stretches and in noise."""
    rng = np.random.default_rng(largest)
    for name, step in (("noise", 1), ("stretches", 7)):
        ids = np.kron(rng.integers(0, largest + 1, shape), np.ones((1, step), np.int64))
        path = tmp_path / f"{name}.png"
        write_panoptic_png(ids, path)
        with Image.open(path) as image:
            image.verify()  # checksums
        bgr = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(rgb2id(bgr[..., ::-1]), ids)


@pytest.mark.parametrize("color", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (255, 255, 255)])
def test_a_colour_is_the_id_that_the_reference_reads(color):
    assert id_of_color(color) == rgb2id(color)


def test_writing_leaves_the_array_alone(tmp_path):
    ids = np.arange(12, dtype=np.int64).reshape(3, 4) * 70_000
    kept = ids.copy()
    write_panoptic_png(ids, tmp_path / "x.png")
    np.testing.assert_array_equal(ids, kept)


def test_transparency_is_ignored(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_panoptic_png(tmp_path / "x.png"), rgb2id(rgba[..., :3]))
    # One colour of a picture without alpha may stand for what is transparent.
    rgb = Image.fromarray(rgba[..., :3])
    rgb.save(tmp_path / "x.png", transparency=tuple(rgba[0, 0, :3].tolist()))
    np.testing.assert_array_equal(read_panoptic_png(tmp_path / "x.png"), rgb2id(rgba[..., :3]))


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16", "LA"])
def test_pictures_without_colour_are_refused(tmp_path, mode):
    path = tmp_path / "grey.png"
    size = (4, 5)
    Image.new(mode, size).save(path)
    with pytest.raises(ValueError, match=r"grey\.png: .*mode '" + mode):
        read_panoptic_png(path)


def test_damaged_files_are_refused_by_name(tmp_path):
    whole, path = tmp_path / "whole.png", tmp_path / "damaged.png"
    write_panoptic_png(np.random.default_rng(0).integers(0, 2**24, (40, 40)), whole)
    data = whole.read_bytes()
    for damaged in (b"", b"not a picture", data[:20], data[: len(data) // 2], data[:-200]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged\.png: cannot be read"):
            read_panoptic_png(path)


def test_large_pictures_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    write_panoptic_png(np.ones((40, 40)), tmp_path / "x.png")
    monkeypatch.setattr("detr_d2.data.image_file.MAX_IMAGE_PIXELS", 40 * 40)
    assert read_panoptic_png(tmp_path / "x.png").all()
    monkeypatch.setattr("detr_d2.data.image_file.MAX_IMAGE_PIXELS", 40 * 40 - 1)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=r"x\.png: .*40×40, more than the 1,599 pixels"):
        read_panoptic_png(tmp_path / "x.png")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        read_panoptic_png(tmp_path / "missing.png")


@pytest.mark.parametrize("wrong", [-1, MAX_SEGMENT_ID + 1, 2**31])
def test_ids_that_do_not_fit_are_refused(tmp_path, wrong):
    path = tmp_path / "x.png"
    with pytest.raises(ValueError, match=rf"x\.png: segment ids must lie in .*{wrong}"):
        write_panoptic_png(np.array([[0, wrong]]), path)
    assert not path.exists()


@pytest.mark.parametrize("target", ["/dev/full", "folder"])
def test_a_file_that_cannot_be_written_is_named(tmp_path, target):
    """A full disk, which the system reports without a name, and a folder in the way."""
    if target == "folder":
        (tmp_path / "x.png").mkdir()
    elif Path(target).exists():
        (tmp_path / "x.png").symlink_to(target)
    else:
        pytest.skip("needs /dev/full")
    with pytest.raises(OSError, match=r"can't be written: .*x\.png"):
        write_panoptic_png(np.ones((300, 300), np.int32), tmp_path / "x.png")

"""PNGs whose ids aren't the annotation's: what was done to them is told apart."""

import numpy as np
import pytest
from PIL import Image

from detr_d2.data.mistaken_png import why_ids_differ
from detr_d2.data.panoptic_png import read_panoptic_png, write_panoptic_png

KNOWN = [1000, 70_000, 5]


@pytest.fixture
def path(tmp_path):
    ids = np.full((48, 64), KNOWN[2])
    ids[4:20, 4:20], ids[24:40, 30:50], ids[:, :2] = KNOWN[0], KNOWN[1], 0
    path = tmp_path / "a.png"
    write_panoptic_png(ids, path)
    return path


def resave(path, change=lambda colors: colors, **options):
    colors = np.asarray(Image.open(path))
    Image.fromarray(np.ascontiguousarray(change(colors))).save(path, **options)


def bgr(path):
    resave(path, lambda colors: colors[..., ::-1])


def jpeg(path):
    resave(path, format="JPEG")


def webp(path):
    resave(path, format="WEBP", quality=30)


def once_jpeg(path):
    jpeg(path)
    resave(path, format="PNG")


def smoothed(path):
    Image.open(path).resize((47, 31), Image.Resampling.BICUBIC).save(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (bgr, "fit after swapping red and blue: it was written as BGR"),
        (jpeg, "Whatever its name, the file is a JPEG"),
        (webp, "is a WEBP"),
        (once_jpeg, "colours were mixed"),
        (smoothed, "colours were mixed"),
    ],
)
def test_what_was_done_is_said(path, change, said):
    change(path)
    assert said in why_ids_differ(path, KNOWN)


def test_nothing_is_said_of_what_fits_or_tells_nothing(path, tmp_path):
    assert why_ids_differ(path, KNOWN) == ""
    assert why_ids_differ(path, KNOWN[1:]) == ""  # a forgotten segment
    assert why_ids_differ(tmp_path / "none.png", KNOWN) == ""
    Image.new("L", (4, 4)).save(path)
    assert why_ids_differ(path, KNOWN) == ""


def test_a_lossy_file_without_a_strange_id_is_none_the_worse(path):
    Image.new("RGB", (16, 16)).save(path, format="JPEG")
    assert not read_panoptic_png(path).any()
    assert why_ids_differ(path, KNOWN) == ""

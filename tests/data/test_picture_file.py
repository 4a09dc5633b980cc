"""Pictures on the disk: what is written, and what it says when that is impossible."""

import errno
import os

import numpy as np
import pytest
from PIL import Image

from detr_d2.data.picture_file import write_picture

PICTURE = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)


def test_a_picture_is_written_as_it_is(tmp_path):
    write_picture(PICTURE, tmp_path / "ü.png")
    assert (np.asarray(Image.open(tmp_path / "ü.png")) == PICTURE).all()
    assert [path.name for path in tmp_path.iterdir()] == ["ü.png"]


def test_a_folder_in_the_way_is_named(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OSError, match=r"can't be written: Is a directory: .*a\.png"):
        write_picture(PICTURE, tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_the_file_is_named_when_nothing_can_be_written(tmp_path, monkeypatch, code):
    """A read-only disk or folder, which wouldn't stop the superuser, and a full one."""

    def refuse(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("detr_d2.file_io.os.fsync", refuse)
    with pytest.raises(OSError, match=rf"{os.strerror(code)}: .*a\.png") as caught:
        write_picture(PICTURE, tmp_path / "a.png")
    assert caught.value.errno == code and list(tmp_path.iterdir()) == []

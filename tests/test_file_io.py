"""Files are there as a whole or not at all, and JSON is read as tools write it."""

import errno
import json
import os
import re
from pathlib import Path

import pytest
import torch

from detr_d2.file_io import (
    check_writable,
    folder_written_whole,
    read_json,
    remove_unfinished,
    write_json_atomically,
    written_whole,
)

CONTENT = {"file_name": "Köln 猫.jpg", "ids": [1, 2]}


def test_a_file_gets_its_name_when_it_is_finished(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with written_whole(path, "w") as file:
        file.write("after")
        file.flush()
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("in_torch", [True, False])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, in_torch):
    path = tmp_path / "model.pth"
    path.write_text("before")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full:
        def write(self, data: object) -> int:
            raise full

        def flush(self) -> None: ...

    with pytest.raises(OSError, match="can't be written: No space left on device") as caught:
        with written_whole(path) as file:
            torch.save({"w": torch.ones(9)}, Full()) if in_torch else Full().write(file)
    assert caught.value.filename == str(path) and caught.value.errno == errno.ENOSPC
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_other_errors_come_through_and_leave_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="^mistake$"), written_whole(tmp_path / "file"):
        raise RuntimeError("mistake")
    assert list(tmp_path.iterdir()) == []


def test_what_is_unfinished_is_removed_and_nothing_else(tmp_path):
    kept = {"model.pth", "notes.tmp", "model.pth.old.tmp", "12.tmp"}
    for name in (*kept, "model.pth.12.tmp", "last_checkpoint.7.tmp"):
        Path(tmp_path, name).touch()
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept
    remove_unfinished(tmp_path / "nowhere")


def test_folders_are_tried_before_anything_is_written_to_them(tmp_path):
    check_writable(tmp_path / "new" / "folder", "KEY")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").touch()
    said = re.escape(f"KEY: nothing can be written to {tmp_path / 'file' / 'folder'} (Not a dir")
    with pytest.raises(OSError, match=said):
        check_writable(tmp_path / "file" / "folder", "KEY")


def test_a_folder_gets_its_name_when_it_is_finished(tmp_path):
    path = tmp_path / "new" / "folder"
    with folder_written_whole(path) as unfinished:
        (unfinished / "file").touch()
        assert not path.exists()
    assert (path / "file").is_file()
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(OSError), folder_written_whole(path):  # it isn't empty
        pass
    with pytest.raises(ValueError, match="^mistake$"), folder_written_whole(tmp_path / "other"):
        raise ValueError("mistake")
    assert list(path.parent.iterdir()) == [path] and list(tmp_path.iterdir()) == [path.parent]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_changes_nothing(tmp_path, encoding):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(CONTENT, ensure_ascii=False), encoding=encoding)
    assert read_json(path) == CONTENT


def test_what_is_written_is_read(tmp_path):
    write_json_atomically(CONTENT, tmp_path / "a.json")
    assert read_json(str(tmp_path / "a.json")) == CONTENT


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe{\x00}\x00", b"\x80", b"[" * 100_000], ids=range(5)
)
def test_what_is_no_json_is_refused_by_name(tmp_path, data):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.json: cannot be read as JSON"):
        read_json(path)

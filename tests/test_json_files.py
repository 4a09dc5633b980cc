"""JSON files as tools write them."""

import json

import pytest

from detr_d2.file_io import read_json, write_json_atomically

CONTENT = {"file_name": "Köln 猫.jpg", "ids": [1, 2]}


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

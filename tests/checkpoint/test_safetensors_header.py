"""Files of safetensors begin with the length of their header, eight bytes that may be any text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from detr_d2.checkpoint import CheckpointError
from detr_d2.checkpoint.weight_files import read_file


@pytest.mark.parametrize("start", [b" <", b" {", b"\n<", b" \t", b"<\x10", b"{\x10"])
def test_a_length_that_looks_like_text(start: bytes, tmp_path: Path):
    """Lengths are rounded up with spaces, so that some begin with a space."""
    length = int.from_bytes(start, "little")
    header = {"layer1.0.conv1.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    path = tmp_path / "model.safetensors"
    path.write_bytes(
        length.to_bytes(8, "little") + json.dumps(header).encode().ljust(length) + bytes(4)
    )
    assert torch.equal(read_file(path)["model"]["layer1.0.conv1.weight"], torch.zeros(1))


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\n <!DOCTYPE html><html></html>", "is a web page"),
        (b"<html>", "is a web page"),
        (b'<?xml version="1.0"?><Error/>', "is a web page"),
        (b'{"error": "not found"}', "is a JSON file"),
        (b'\n{\n  "model": 1\n}\n', "is a JSON file"),
        (b"{}", "is a JSON file"),
    ],
)
def test_text_is_still_recognised(name: str, content: bytes, what: str, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name} {what}"):
        read_file(tmp_path / name)

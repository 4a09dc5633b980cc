"""The README's snippet runs, and it stays short. test_docs.py looks at the rest."""

from pathlib import Path

import cv2
from page_blocks import blocks

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_snippet_runs(quickstart_model):
    (snippet,) = blocks("README.md", "python")
    names: dict = {}
    exec(compile(snippet, "README.md", "exec"), names)
    assert names["ids"].max() >= 1 and names["segments_info"]
    assert cv2.imread(str(quickstart_model / "picture.png")) is not None


def test_it_can_be_read_in_one_go():
    assert len(README.splitlines()) <= 180

"""Snippets in docs/ run, one after the other on a page."""

import json
import re

import cv2
import numpy as np
import pytest
from matplotlib import pyplot as plt
from page_blocks import blocks


def run(snippet: str, name: str, names: dict) -> None:
    exec(compile(snippet, name, "exec"), names)


def test_predictions_and_their_explanation(quickstart_model, capsys):
    names: dict = {}
    prediction, views = blocks("docs/prediction.md", "python")
    run(prediction, "prediction.md", names)
    printed = capsys.readouterr().out.strip().splitlines()
    assert printed
    assert re.fullmatch(r"1: \w+ \(thing\), \d+ pixels, 100%", printed[0])
    assert cv2.imread(str(quickstart_model / "picture.png")) is not None
    run(views, "prediction.md", names)
    height, width = names["image"].shape[:2]
    assert names["picture"].shape[0] * width == names["picture"].shape[1] * height
    (explanation,) = blocks("docs/explanation.md", "python")
    run(explanation, "explanation.md", names)
    assert names["attention"].shape[0] == 8
    assert (quickstart_model / "explained" / "explain.html").is_file()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_source_of_annotations(folder):
    source, _ = blocks("docs/extending.md", "python")
    categories = [{"id": 1, "name": "cat", "isthing": 1}, {"id": 4, "name": "sky", "isthing": 0}]
    (folder / "categories.json").write_text(json.dumps(categories))
    (folder / "photos").mkdir()
    ids = np.zeros((6, 8), np.int64)
    ids[:3] = 4
    np.save(folder / "photos" / "a.npy", ids)
    cv2.imwrite("photos/a.jpg", np.zeros((6, 8, 3), np.uint8))
    run(source, "extending.md", {"__name__": "source_of_arrays"})
    written = json.loads((folder / "prepared" / "panoptic.json").read_text())
    (annotation,) = written["annotations"]
    assert [s["category_id"] for s in annotation["segments_info"]] == [4]
    assert annotation["segments_info"][0]["area"] == 24


def test_a_figure_from_a_report(folder):
    _, figure = blocks("docs/extending.md", "python")
    (folder / "output").mkdir()
    report = {"runs": [{"images": [{"PQ": 50.0}, {"PQ": None}, {"PQ": 70.0}]}]}
    (folder / "output" / "report.json").write_text(json.dumps(report))
    run(figure, "extending.md", {})
    plt.close("all")
    assert cv2.imread("pq_of_images.png") is not None

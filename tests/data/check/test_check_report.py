"""The figures of a dataset and the words of its report."""

import json

import pytest

from detr_d2.data.check import write_reports


def test_figures_by_hand(dataset):
    content = dataset.check().to_dict()
    pixels = 3 * 12 * 16
    assert content["breaks"] is False and content["findings"] == []
    assert content["images"] == {
        "count": 3,
        "height": {"lowest": 12, "mean": 12.0, "highest": 12},
        "width": {"lowest": 16, "mean": 16.0, "highest": 16},
        "segments": {"lowest": 4, "mean": 4.0, "highest": 4},
        "void_share": pytest.approx(2 * 16 * 3 / pixels),
    }
    cat, dog, sky = content["classes"]
    assert cat == {
        "id": 5,
        "name": "cat",
        "isthing": True,
        "images": 3,
        "segments": 3,
        "pixel_share": pytest.approx(30 / pixels),
        "area": {"lowest": 10, "mean": 10.0, "highest": 10},
        "tiny_share": 0,
    }
    assert (dog["segments"], dog["area"]["highest"]) == (3, 8)  # without crowds
    assert (sky["isthing"], sky["area"]["mean"]) == (False, 12 * 16 - 2 * 16 - 10 - 24 - 8)


def test_the_share_of_tiny_segments(dataset):
    from detr_d2.data.panoptic_png import read_panoptic_png, write_panoptic_png

    ids = read_panoptic_png(dataset.png(0)).copy()
    ids[11, 4:8] = 0
    write_panoptic_png(ids, dataset.png(0))
    report = dataset.check()
    assert report.to_dict()["classes"][1]["tiny_share"] == pytest.approx(1 / 3)
    assert "33.33%" in str(report)


def test_the_json_holds_what_the_table_shows(dataset, tmp_path):
    dataset.image(1).unlink()
    for number in range(3):
        for segment in dataset.segments(number)[:2]:
            segment["area"] += 1
    report = dataset.check()
    write_reports([report], str(tmp_path / "report.json"))
    (content,) = json.loads((tmp_path / "report.json").read_text())["datasets"]
    assert content == report.to_dict()
    assert [(f["kind"], f["severity"], f["count"]) for f in content["findings"]] == [
        ("unreadable_image", "breaks", 1),
        ("wrong_area", "biases", 6),
    ]
    assert str(dataset.image(1)) in content["findings"][0]["examples"][0]["where"]
    text = str(report)
    for shown in (str(dataset.image(1)), "and 3 more", "sky", "would break training"):
        assert shown in text


def test_verdicts(dataset):
    assert "Nothing is wrong." in str(dataset.check())
    dataset.segments(0)[0]["area"] += 1
    assert "Nothing would break" in str(dataset.check())


def test_a_dataset_of_nothing(dataset):
    for name in ("images", "annotations", "categories"):
        dataset.content[name].clear()
    report = dataset.check()
    assert report.to_dict()["images"]["height"] == {"lowest": None, "mean": None, "highest": None}
    assert "0 images" in str(report)

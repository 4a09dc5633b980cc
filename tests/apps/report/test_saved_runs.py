"""Reports on saved predictions."""

import json

import numpy as np
import pytest

from detr_d2.apps.report import report_on_saved
from detr_d2.data.panoptic_png import write_panoptic_png

NAME = "scenes"


@pytest.fixture
def save(make_scenes, predict, evaluate_pq, tmp_path):
    """Writes predictions of a dataset of 8 scenes; returns their folder and their figures."""
    records = make_scenes(8)

    def write(name, seed=0, **options):
        outputs = [predict(record, seed=seed, **options) for record in records]
        results = evaluate_pq(records, outputs, tmp_path / name)
        return tmp_path / name, results

    return write


def read(folder):
    return json.loads((folder / "report.json").read_text())


def change(folder, edit):
    path = folder / "predictions.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_figures_are_the_evaluators(save, tmp_path):
    folder, results = save("run")
    page = report_on_saved([folder], NAME, tmp_path / "out", score_thresh=0.5)
    assert page == tmp_path / "out" / "report.html"
    (run,) = read(tmp_path / "out")["runs"]
    assert run["groups"]["all"]["PQ"] == results["PQ"]
    assert run["groups"]["stuff"]["RQ"] == results["RQ_st"]
    points = {p["score_thresh"]: p["PQ"] for p in run["sweep"]["points"]}
    assert points[0.5] == results["PQ"] and min(points) == 0.5
    # These queries don't overlap, so no other segment takes the pixels of a dropped one.
    assert points[0.8] == save("again", thresh=0.8)[1]["PQ"] != results["PQ"]
    assert not run["sweep"]["recomputes_masks"]
    assert "their pixels stay empty" in page.read_text()


def test_a_threshold_that_scores_contradict_is_not_named(save, tmp_path, caplog):
    folder, results = save("run", thresh=0.3)
    page = report_on_saved([folder], NAME, tmp_path / "out", score_thresh=0.5).read_text()
    (run,) = read(tmp_path / "out")["runs"]
    assert run["score_thresh"] is None and "as evaluated" not in page
    points = {p["score_thresh"]: p["PQ"] for p in run["sweep"]["points"]}
    assert points[0.05] == results["PQ"] != points[0.5]
    assert "weren't made with the score threshold 0.5" in caplog.text


def test_two_runs_side_by_side(save, tmp_path):
    first, before = save("first", thresh=0.3)
    second, after = save("second", thresh=0.6)
    page = report_on_saved([first, second], NAME, tmp_path / "out").read_text()
    runs = read(tmp_path / "out")["runs"]
    assert [run["name"] for run in runs] == ["first", "second"]
    assert [run["groups"]["all"]["PQ"] for run in runs] == [before["PQ"], after["PQ"]]
    gain = f"{after['PQ'] - before['PQ']:+.2f}".replace("-", "−")
    assert gain in page and "B − A" in page


def test_all_ways_to_name_a_run(save, tmp_path):
    folder, _ = save("some_run/inference/scenes")
    pages = [
        report_on_saved([path], NAME, tmp_path / "out").read_text()
        for path in (folder, folder / "predictions.json", tmp_path / "some_run")
    ]
    assert len(set(pages)) == 1 and "some_run on scenes" in pages[0]
    with pytest.raises(FileNotFoundError, match="SAVE_PREDICTIONS"):
        report_on_saved([tmp_path], NAME, tmp_path / "out")


def test_fewer_images_than_the_dataset_has(save, tmp_path):
    folder, _ = save("run")
    change(folder, lambda content: content["annotations"].pop())
    page = report_on_saved([folder], NAME, tmp_path / "out").read_text()
    assert read(tmp_path / "out")["runs"][0]["num_images"] == 7
    assert "7 of 8 images" in page and "Not all images of the dataset were predicted" in page


def test_predictions_without_scores(save, tmp_path):
    folder, results = save("run")

    def strip(content):
        for annotation in content["annotations"]:
            for segment in annotation["segments_info"]:
                del segment["score"]

    change(folder, strip)
    page = report_on_saved([folder], NAME, tmp_path / "out").read_text()
    (run,) = read(tmp_path / "out")["runs"]
    assert {p["PQ"] for p in run["sweep"]["points"]} == {results["PQ"]}
    assert run["calibration"]["segments"] == 0 and "have no scores" in page


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda a: a.update(file_name="../../../etc/hosts"), "leaves its folder"),
        (lambda a: a.update(file_name="missing.png"), "missing.png"),
        (lambda a: a.update(image_id=5), "image 5 is not in dataset 'scenes'"),
        (lambda a: a["segments_info"][0].update(category_id=77), "category 77"),
        (lambda a: a["segments_info"][0].update(score=3), "score 3"),
        (lambda a: a["segments_info"][0].update(score="high"), "score 'high'"),
        (lambda a: a.pop("segments_info"), "'segments_info'"),
        (lambda a: a["segments_info"].pop(), "image 100 .*lacks segment"),
    ],
)
def test_broken_predictions_are_refused_by_name(save, tmp_path, edit, message):
    folder, _ = save("run")
    change(folder, lambda content: edit(content["annotations"][0]))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        report_on_saved([folder], NAME, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_predictions_of_another_size(save, tmp_path):
    folder, _ = save("run")
    name = json.loads((folder / "predictions.json").read_text())["annotations"][2]["file_name"]
    write_panoptic_png(np.zeros((3, 4), dtype=int), folder / "predictions" / name)
    with pytest.raises(ValueError, match="image 102 .*one shape"):
        report_on_saved([folder], NAME, tmp_path / "out")


def test_no_json(save, tmp_path):
    folder, _ = save("run")
    for content in ("{", "[]", '{"annotations": 3}'):
        (folder / "predictions.json").write_text(content)
        with pytest.raises(ValueError, match=r"predictions\.json"):
            report_on_saved([folder], NAME, tmp_path / "out")


def test_command(save, tmp_path, run_cli, capsys):
    folder, results = save("run")
    assert run_cli("report", folder, "--dataset", NAME) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert read(folder)["runs"][0]["groups"]["all"]["PQ"] == results["PQ"]
    with pytest.raises(SystemExit, match="error: .*predictions.json"):
        run_cli("report", tmp_path, "--dataset", NAME)
    with pytest.raises(SystemExit, match="2"):
        run_cli("report", folder)

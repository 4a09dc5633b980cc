"""A report made while a model is evaluated."""

import json

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils import comm
from torch.multiprocessing import start_processes

from detr_d2.apps.report import ReportCollector
from detr_d2.engine import evaluate_only
from detr_d2.evaluation import PanopticEvaluator, ground_truth

NAME = "scenes"


def report_of(collector, records, outputs, folder):
    collector.process(records, outputs)
    assert collector.evaluate() is None
    return json.loads((folder / "report.json").read_text())["runs"][0]


def assert_figures_are_the_evaluators(figures, results):
    for group, suffix in (("all", ""), ("things", "_th"), ("stuff", "_st")):
        for figure in ("PQ", "SQ", "RQ"):
            value = figures["groups"][group][figure]
            expected = results[figure + suffix]
            assert value == expected or (value is None and expected != expected)
    for of_class in figures["classes"]:
        expected = results[f"PQ-{of_class['name']}"]
        assert of_class["PQ"] == expected or (of_class["PQ"] is None and expected != expected)


@pytest.fixture
def scenes_cfg(make_tiny_cfg, tmp_path):
    return make_tiny_cfg(tmp_path / "output", "MODEL.DETR.TEST.SCORE_THRESH", 0.5)


def test_figures_are_the_evaluators(make_scenes, predict, evaluate_pq, scenes_cfg, tmp_path):
    records = make_scenes(20)
    outputs = [predict(record) for record in records]
    collector = ReportCollector(scenes_cfg, NAME, str(tmp_path / "out"))
    figures = report_of(collector, records, outputs, tmp_path / "out")
    results = evaluate_pq(records, outputs)
    assert_figures_are_the_evaluators(figures, results)
    assert 5 < results["PQ"] < 95
    at_threshold = {p["score_thresh"]: p for p in figures["sweep"]["points"]}
    assert at_threshold[0.5]["PQ"] == results["PQ"]
    for threshold in (0.35, 0.8):
        again = evaluate_pq(records, [predict(record, thresh=threshold) for record in records])
        assert at_threshold[threshold]["PQ"] == again["PQ"] != results["PQ"]
    assert figures["num_images"] == 20
    shown = [image["image_id"] for image in figures["images"]]
    assert shown == [record["image_id"] for record in records]


@pytest.mark.parametrize("kind", ["things", "stuff", "crowds", "no predictions"])
def test_what_there_is_none_of(make_scenes, predict, evaluate_pq, scenes_cfg, tmp_path, kind):
    categories = [
        {"id": i, "name": f"class {i}", "isthing": int(kind != "stuff")} for i in range(4)
    ]
    records = make_scenes(4, categories, crowds=1.0 if kind == "crowds" else 0.0)
    thresh = 1.0 if kind == "no predictions" else 0.5
    scenes_cfg.MODEL.DETR.TEST.SCORE_THRESH = thresh
    outputs = [predict(record, thresh=thresh) for record in records]
    collector = ReportCollector(scenes_cfg, NAME, str(tmp_path / "out"))
    figures = report_of(collector, records, outputs, tmp_path / "out")
    assert_figures_are_the_evaluators(figures, evaluate_pq(records, outputs))
    page = (tmp_path / "out" / "report.html").read_text()
    if kind in ("things", "stuff"):
        other = "stuff" if kind == "things" else "things"
        assert figures["groups"][other]["PQ"] is None
        assert "none in these images" in page
    if kind == "no predictions":
        assert figures["false_positives"] == [] and figures["false_negatives"]
        assert "have no scores" in page
    if kind == "crowds":
        assert figures["false_negatives"] == []


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1)])
def test_images_of_odd_sizes(make_scenes, predict, evaluate_pq, scenes_cfg, tmp_path, size):
    records = make_scenes(2, size=size)
    outputs = [predict(record) for record in records]
    collector = ReportCollector(scenes_cfg, NAME, str(tmp_path / "out"))
    figures = report_of(collector, records, outputs, tmp_path / "out")
    assert_figures_are_the_evaluators(figures, evaluate_pq(records, outputs))
    assert (tmp_path / "out" / "report.html").read_text().count("<figure id=") == 2


def test_no_image_at_all(make_scenes, scenes_cfg, tmp_path):
    make_scenes(2)
    collector = ReportCollector(scenes_cfg, NAME, str(tmp_path / "out"))
    figures = report_of(collector, [], [], tmp_path / "out")
    assert figures["num_images"] == 0 and figures["groups"]["all"]["PQ"] is None
    assert "No image was predicted" in (tmp_path / "out" / "report.html").read_text()


def test_memory_does_not_grow_with_predictions(make_scenes, predict, record_run):
    """Only predictions that may be shown are kept."""
    records = make_scenes(60)
    run = record_run(records, [predict(record) for record in records])
    assert set(run.predictions) == run.ranking.places() | set(run.random)
    assert len(run.predictions) < 40


def test_wrong_predictions_name_the_image(make_scenes, predict, scenes_cfg, tmp_path):
    (record,) = make_scenes(1)
    output = predict(record)
    output["panoptic_seg"] = (output["panoptic_seg"][0][:5], output["panoptic_seg"][1])
    collector = ReportCollector(scenes_cfg, NAME, str(tmp_path))
    with pytest.raises(ValueError, match=r"image 100 .*one shape"):
        collector.process([record], [output])


def test_annotations_are_read_once_for_figures_and_report(
    make_scenes, predict, scenes_cfg, tmp_path, monkeypatch
):
    read, read_png = [], ground_truth.read_panoptic_png
    monkeypatch.setattr(
        ground_truth, "read_panoptic_png", lambda path: read.append(path) or read_png(path)
    )
    records = make_scenes(5)
    outputs = [predict(record) for record in records]
    panoptic = PanopticEvaluator(NAME)
    collector = ReportCollector(scenes_cfg, NAME, str(tmp_path / "one"), panoptic=panoptic)
    for batch in (slice(0, 2), slice(2, 5)):
        for evaluator in (panoptic, collector):
            evaluator.process(records[batch], outputs[batch])
    assert read == [record["pan_seg_file_name"] for record in records]
    collector.evaluate()
    alone = ReportCollector(scenes_cfg, NAME, str(tmp_path / "other"))
    report_of(alone, records, outputs, tmp_path / "other")
    for name in ("report.json", "report.html"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "other" / name).read_text()


def test_a_model_without_masks_has_no_report(make_scenes, scenes_cfg, tmp_path):
    make_scenes(1)
    scenes_cfg.MODEL.DETR.MASK_ON = False
    with pytest.raises(ValueError, match=r"MODEL\.DETR\.MASK_ON"):
        ReportCollector(scenes_cfg, NAME, str(tmp_path))


def _worker(rank, root, cfg, records, outputs):
    store = f"file://{root / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, world_size=2, rank=rank)
    collector = ReportCollector(cfg, NAME, str(root / "two"))
    collector.process(records[rank::2], outputs[rank::2])
    assert comm.get_world_size() == 2
    collector.evaluate()
    torch.distributed.destroy_process_group()


def test_two_processes_write_what_one_does(make_scenes, predict, scenes_cfg, tmp_path):
    records = make_scenes(9)
    outputs = [predict(record) for record in records]
    collector = ReportCollector(scenes_cfg, NAME, str(tmp_path / "one"))
    report_of(collector, records, outputs, tmp_path / "one")
    args = (tmp_path, scenes_cfg, records, outputs)
    start_processes(_worker, args=args, nprocs=2, start_method="fork")
    for name in ("report.json", "report.html"):
        assert (tmp_path / "two" / name).read_text() == (tmp_path / "one" / name).read_text()


def test_evaluation_with_a_report(make_tiny_cfg, tmp_path):
    """``--eval-only --report`` of a model, from its weights to the page."""
    cfg = make_tiny_cfg(tmp_path / "output", "MODEL.DETR.TEST.NUM_PICTURES", 0)
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "model.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    cfg.MODEL.DETR.TEST.INSTANCES_ON = False
    results = evaluate_only(cfg, reporter=ReportCollector)
    folder = tmp_path / "output/inference/small_shapes_val"
    content = json.loads((folder / "report.json").read_text())
    assert content["dataset"] == "small_shapes_val"
    assert_figures_are_the_evaluators(content["runs"][0], results["panoptic_seg"])
    assert not cfg.MODEL.DETR.TEST.RAW_ON
    page = (folder / "report.html").read_text()
    assert "small_shapes_val" in page and "http" not in page.replace("http-equiv", "")


def test_report_goes_with_eval_only(run_cli, capsys):
    with pytest.raises(SystemExit, match="2"):
        run_cli("train", "--config-file", "shapes/detr_panoptic.yaml", "--report")
    assert "--report goes with --eval-only" in capsys.readouterr().err

"""All evaluators see the same dataset, and agree on it."""

from benchmarks.benchmark_report import BenchmarkReport
from benchmarks.evaluation import DATASET, FIGURES, made_up_dataset, run_evaluation
from detectron2.data import DatasetCatalog


def test_evaluators_agree(quick_settings, tmp_path):
    report = BenchmarkReport(tmp_path, quick_settings, ["benchmark"])
    run_evaluation(quick_settings, report)
    found = report.content["evaluation"]
    assert found["largest_difference"] < 1e-9
    assert list(found["figures"]) == ["ours", "detectron2", "ours, 2 processes", "hotcoco"]
    assert set(found["figures"]["ours"]) == set(FIGURES)
    assert 0 < found["figures"]["ours"]["PQ"] < 100
    assert DATASET not in DatasetCatalog.list()


def test_predictions_are_not_used_up(quick_settings, tmp_path):
    with made_up_dataset(tmp_path, quick_settings) as predictions:
        assert len(predictions) == quick_settings.evaluated_images
        for _, (ids, segments_info) in predictions:
            assert set(ids.unique().tolist()) == {s["id"] for s in segments_info}
            assert all("isthing" in s for s in segments_info)

"""The command from its arguments to its files."""

from __future__ import annotations

import json
import sys

import cv2
import pytest
from benchmarks.benchmark_extras import require_extras
from benchmarks.benchmark_report import TABLES, BenchmarkReport, to_markdown
from benchmarks.benchmark_settings import BenchmarkSettings
from benchmarks.plot import draw
from benchmarks.stage_times import STAGES
from benchmarks.start_up import PROCESSES
from benchmarks.subjects import SUBJECTS
from benchmarks.training import PLAIN, VARIANTS

from detr_d2.cli.program import run_module


@pytest.fixture
def run_tool(monkeypatch, tmp_path):
    def run(*args: str) -> None:
        command = [*args, "--output", str(tmp_path), "--threads", "1"]
        monkeypatch.setattr(sys, "argv", ["tools/benchmark.py", *command])
        run_module("benchmarks.benchmark_command", command, "tools/benchmark.py")

    return run


def test_quick_run_of_all_parts(run_tool, tmp_path, capsys, monkeypatch):
    light = {
        name: of for name, of in PROCESSES.items() if name.endswith(("help", "import detr_d2"))
    }
    monkeypatch.setattr("benchmarks.start_up.PROCESSES", light)  # others take five seconds each
    run_tool("all", "--quick", "--sweeps")
    content = json.loads((tmp_path / "benchmark.json").read_text())
    printed = capsys.readouterr().out

    assert content["command"][:3] == ["tools/benchmark.py", "all", "--quick"]
    assert content["machine"]["threads"] == 1
    assert content["versions"]["torch"] and content["versions"]["transformers"]
    inference, training, evaluation = (
        content[part] for part in ("inference", "training", "evaluation")
    )
    assert list(inference["seconds"]) == [n for n in SUBJECTS if n != "panoptic compiled"]
    assert list(training["seconds"]) == [*VARIANTS, PLAIN]
    assert list(evaluation["seconds"]) == ["ours", "detectron2", "ours, 2 processes", "hotcoco"]
    for part in (inference, training, evaluation):
        assert all(len(times) == 2 for times in part["seconds"].values())
        assert next(iter(part["ratios"].values())) == 1
        for name, ratio in part["ratios"].items():
            assert ratio == part["medians"][name] / next(iter(part["medians"].values()))
            assert f"| {name} " in printed
    for part in TABLES:
        assert all(len(times) == 2 for times in content[part]["seconds"].values())
        assert set(content[part]["seconds"]) <= set(content[part]["ratios"])
    assert "largest difference of all values of precision is 0." in printed
    assert inference["kept_queries"] == 5
    assert inference["agreement"]["panoptic"]["equal_ids"] > 0.999
    assert set(inference["stages"]["medians"]) == set(STAGES)
    assert {n: len(points) for n, points in inference["sweeps"].items()} == {
        "kept queries": 2,
        "all queries": 2,
        "image size": 2,
        "batch": 2,
    }
    assert printed.strip() == (tmp_path / "benchmark.md").read_text().strip()
    assert cv2.imread(str(tmp_path / "benchmark.png")) is not None


def test_an_interruption_leaves_what_was_measured(run_tool, tmp_path, monkeypatch):
    def first_part(settings: BenchmarkSettings, report: BenchmarkReport) -> None:
        report.section("evaluation")["seconds"] = {"ours": [1.0], "detectron2": [4.0]}

    def second_part(settings: BenchmarkSettings, report: BenchmarkReport) -> None:
        raise KeyboardInterrupt

    parts = {"evaluation": first_part, "training": second_part}
    monkeypatch.setattr("benchmarks.benchmark_run.PARTS", parts)
    with pytest.raises(SystemExit, match="interrupted; what was measured is in"):
        run_tool("all", "--quick")
    content = json.loads((tmp_path / "benchmark.json").read_text())
    assert content["evaluation"]["ratios"] == {"ours": 1.0, "detectron2": 4.0}
    assert (tmp_path / "benchmark.md").exists() and (tmp_path / "benchmark.png").exists()


def test_settings_that_cannot_be_met_are_refused_in_a_line(run_tool, monkeypatch):
    def refuse(*args: object) -> None:
        raise ValueError("101 queries can't be kept")

    monkeypatch.setattr("benchmarks.inference.make_workload", refuse)
    with pytest.raises(SystemExit, match="error: 101 queries can't be kept"):
        run_tool("inference", "--quick")


@pytest.mark.parametrize("lacking", [["transformers"], ["transformers", "matplotlib"]])
def test_missing_packages_are_named_with_their_extra(run_tool, monkeypatch, lacking):
    for name in lacking:
        monkeypatch.setitem(sys.modules, name, None)
    expected = f"Benchmarks need {' and '.join(lacking)}, which .*benchmark"
    with pytest.raises(ImportError, match=expected):
        require_extras()
    with pytest.raises(SystemExit, match=f"error: {expected}"):
        run_tool("--quick")


def test_an_empty_report_is_complete_as_far_as_it_goes(quick_settings, tmp_path):
    report = BenchmarkReport(tmp_path, quick_settings, ["benchmark"])
    for part in ("inference", "training", "evaluation"):
        report.section(part)
        report.write()
    assert "processor" in json.loads((tmp_path / "benchmark.json").read_text())["machine"]
    draw(report.content, tmp_path / "benchmark.png")
    assert not (tmp_path / "benchmark.png").exists()


def test_killed_processes_and_untimed_subjects_are_empty_cells(quick_settings, tmp_path):
    content = BenchmarkReport(tmp_path, quick_settings, ["benchmark"]).content
    content["inference"] = {
        "seconds": {"panoptic": [2.0, 4.0, 3.0], "plain": []},
        "memory": {"panoptic": {"total": 900.0, "rise": 80.0}, "plain": None},
        "agreement": {"panoptic": {"equal_segments": 1.0}},
    }
    report = BenchmarkReport(tmp_path, quick_settings, ["benchmark"])
    report.content = content
    report.write()
    assert content["inference"]["medians"] == {"panoptic": 3.0}
    rows = [line.split("|") for line in to_markdown(content).splitlines() if line[:2] == "| "]
    cells = {row[1].strip(): [cell.strip() for cell in row[2:-1]] for row in rows}
    assert cells["panoptic"] == ["3.000", "1.00", "900", "80", "100.000 %"]
    assert cells["plain"] == [""] * 5

"""The checks on a GPU, tried out on a CPU with a tiny model."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks import gpu_inference, gpu_report, gpu_training
from benchmarks.gpu_check import main
from benchmarks.gpu_report import CHECKS, GPUReport, run_checks
from benchmarks.gpu_setup import Bench, CheckFailed, CheckSkipped

SCRIPT = Path(__file__).resolve().parents[3] / "tools" / "gpu_check.sh"
QUICK = ("--device", "cpu", "--quick", "--output")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture(scope="module")
def bench(quick_settings):
    return Bench(quick_settings, quick=True)


@pytest.fixture
def report(bench, tmp_path):
    return GPUReport(tmp_path / "report", bench, ["gpu_check"])


def run(arguments: list[str], checks: dict, monkeypatch) -> int:
    monkeypatch.setattr(gpu_report, "CHECKS", checks)
    return main(arguments)


def read(folder: Path) -> tuple[dict, str]:
    return json.loads((folder / "gpu_check.json").read_text()), (folder / "gpu_check.md").read_text(
        encoding="utf-8"
    )


def numbers(figures: dict) -> list[float]:
    return [value for value in figures.values() if isinstance(value, (int, float))]


def test_a_quick_run_on_a_cpu_makes_all_checks_that_a_cpu_can(tmp_path, capsys):
    assert main([*QUICK, str(tmp_path)]) == 0
    content, page = read(tmp_path)
    checks = content["checks"]
    assert list(checks) == list(CHECKS)
    skipped = {name: c["reason"] for name, c in checks.items() if c["status"] == "skipped"}
    assert all(reason.endswith("needs a GPU") for reason in skipped.values())
    assert all("AMP" in name or "peak memory" in name for name in skipped) and len(skipped) == 5
    done = {name: c["figures"] for name, c in checks.items() if name not in skipped}
    assert {checks[name]["status"] for name in done} == {"ok"}
    assert all(numbers(f) and all(map(math.isfinite, numbers(f))) for f in done.values())
    assert done["DDP in one process"] == {"backend": "gloo", "difference": 0, "tolerance": 1e-3}
    assert done["ids against the CPU's, float32"]["equal_ids"] == 1
    assert done["ids against the CPU's, float32"]["num_segments"] > 2
    assert done["torch.compile"]["equal_ids"] == 1
    assert done["losses against the CPU's"]["largest_difference"] == 0
    assert done["images per second beside transformers"]["transformers_per_second"] > 0

    assert content["verdict"] == "passed: 10 ok, 0 failed, 5 skipped"
    assert not content["on_gpu"] and content["machine"]["gpu"] is None
    assert "no GPU was checked" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu_check.json", "gpu_check.md"]
    assert content["verdict"] in capsys.readouterr().out


def test_a_check_that_fails_stops_no_other_and_is_the_exit_status(tmp_path, monkeypatch):
    def crash(bench: Bench) -> dict:
        raise RuntimeError("CUDA error: illegal address\nand much more")

    def differ(bench: Bench) -> dict:
        raise CheckFailed("pictures differ", {"equal_ids": 0.5})

    def skip(bench: Bench) -> dict:
        raise CheckSkipped("not installed")

    checks = {"a": crash, "b": differ, "c": skip, "d": lambda bench: {"seconds": 1.0}}
    assert run([*QUICK, str(tmp_path)], checks, monkeypatch) == 1
    content, page = read(tmp_path)
    found = content["checks"]
    assert [c["status"] for c in found.values()] == ["failed", "failed", "skipped", "ok"]
    assert found["a"]["reason"] == "RuntimeError: CUDA error: illegal address"
    assert found["b"]["figures"] == {"equal_ids": 0.5} and found["d"]["figures"]["seconds"] == 1
    assert content["verdict"] == "FAILED: 1 ok, 2 failed, 1 skipped"
    assert "| pictures differ " in page


def test_when_time_is_spent_a_check_is_stopped_and_the_rest_is_skipped(bench, report):
    def endless(bench: Bench) -> dict:
        while True:
            pass

    run_checks(bench, report, 0.1, {"a": endless, "b": lambda bench: {}})
    found = report.content["checks"]
    assert {check["status"] for check in found.values()} == {"skipped"}
    assert found["a"]["reason"].startswith("no time left: stopped after")
    assert found["b"]["reason"] == "no time left" and not report.failed


def test_without_time_nothing_is_checked(tmp_path):
    assert main([*QUICK, str(tmp_path), "--seconds", "0"]) == 0
    content, _ = read(tmp_path)
    assert {c["reason"] for c in content["checks"].values()} == {"no time left"}
    assert content["verdict"] == f"unfinished: 0 ok, 0 failed, {len(CHECKS)} skipped"


def test_an_interruption_leaves_what_was_checked(tmp_path, monkeypatch, capsys):
    def interrupt(bench: Bench) -> dict:
        raise KeyboardInterrupt

    checks = {"a": lambda bench: {"loss": 1.0}, "b": interrupt}
    assert run([*QUICK, str(tmp_path)], checks, monkeypatch) == 130
    content, _ = read(tmp_path)
    assert content["checks"]["a"]["status"] == "ok"
    assert "what was checked is in" in capsys.readouterr().err


def test_losses_that_differ_are_a_failure(bench, monkeypatch):
    losses = iter([{"loss_mask": torch.tensor(1.01)}, {"loss_mask": torch.tensor(1.0)}])
    monkeypatch.setattr(gpu_training, "_losses", lambda bench, device: next(losses))
    with pytest.raises(CheckFailed, match="loss_mask is 1.01") as failed:
        gpu_training.check_losses(bench)
    assert failed.value.figures["largest_difference"] == pytest.approx(0.01, rel=1e-3)


def test_gradients_that_differ_are_a_failure(bench, monkeypatch):
    found = iter([[torch.ones(2)], [torch.tensor([1.0, 1.1])]])
    monkeypatch.setattr(gpu_training, "gradients", lambda model: next(found))
    with pytest.raises(CheckFailed, match="gradients differ"):
        gpu_training.check_ddp(bench)


def test_gradients_that_are_not_finite_are_a_failure(bench, monkeypatch):
    monkeypatch.setattr(gpu_training, "gradients", lambda model: [torch.tensor([math.inf])])
    with pytest.raises(CheckFailed, match="isn't finite"):
        gpu_training.check_step(bench, "boxes", amp=False)


def test_pictures_that_differ_are_a_failure(bench, monkeypatch):
    right = gpu_inference.predict

    def shifted(model, bench):
        picture = right(model, bench)
        picture.ids[:10] = 0
        return picture

    pictures = iter([right, shifted])
    monkeypatch.setattr(gpu_inference, "predict", lambda *args: next(pictures)(*args))
    with pytest.raises(CheckFailed, match="the pictures differ") as failed:
        gpu_inference.check_ids(bench, "float32")
    assert 0.5 < failed.value.figures["equal_ids"] < 0.99


def test_without_transformers_its_check_is_skipped(bench, monkeypatch):
    monkeypatch.setattr(gpu_inference, "find_spec", lambda name: None)
    with pytest.raises(CheckSkipped, match="transformers isn't installed: pip install"):
        gpu_inference.check_beside_transformers(bench)


def call_script(*arguments: str, python: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "DETR_D2_VENV": "/nowhere", "PYTHON": python}
    return subprocess.run(
        [str(SCRIPT), *arguments], env=environment, capture_output=True, text=True
    )


@without_gpu
def test_without_a_gpu_the_script_says_so_in_one_line(tmp_path):
    result = call_script("--output", str(tmp_path / "none"), python=sys.executable)
    assert result.returncode == 2 and not result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: PyTorch finds no GPU.")
    assert not (tmp_path / "none").exists()


def test_missing_packages_are_named_in_one_line(tmp_path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    result = call_script(python=str(bare))
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "lacks torch, torchvision, detectron2" in line and "tools/setup_env.sh" in line


def test_without_detectron2_the_command_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "detr_d2", None)
    assert main([*QUICK, "unused"]) == 2
    assert capsys.readouterr().err.startswith("error: ")

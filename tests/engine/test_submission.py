"""Jobs by submitit: what is asked for, what runs, and how it goes on after an interruption."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from detr_d2.engine.submission import Training, submit

RESOURCES = {"nodes": 1, "processes": 1, "gpus": 0, "cpus": 1, "hours": 0.5}


@pytest.fixture
def config(make_fast_cfg, tmp_path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(make_fast_cfg(tmp_path / "output", "SOLVER.STAGES", ["boxes"]).dump())
    return path


@pytest.fixture
def quiet(monkeypatch) -> None:
    """No loggers for the whole session."""
    for setup in ("setup_logger", "default_setup"):
        monkeypatch.setattr(f"detr_d2.engine.command.{setup}", lambda *args, **kwargs: None)


def test_a_job_trains(config, quiet, tmp_path):
    """In submitit's executor for debugging, which runs it at once and here."""
    pytest.importorskip("submitit")
    seed = ["SEED", "3"]
    job = submit(["--config-file", str(config), *seed], cluster="debug", **RESOURCES)
    job.result()
    assert (tmp_path / "output" / "boxes" / "model_final.pth").exists()


def test_an_interrupted_job_resumes(config):
    pytest.importorskip("submitit")
    argv = ["--config-file", str(config), "SEED", "3"]
    delayed = pickle.loads(pickle.dumps(Training(argv))).checkpoint()
    again = delayed.function
    assert isinstance(again, Training) and again.argv == ["--resume", *argv]
    assert again.checkpoint().function.argv == ["--resume", *argv]


def test_what_is_asked_of_slurm(config, monkeypatch, tmp_path):
    submitit = pytest.importorskip("submitit")
    asked = {}

    class Executor:
        def __init__(self, folder: str, cluster: str | None) -> None:
            asked.update(folder=folder, cluster=cluster)

        def update_parameters(self, **parameters: object) -> None:
            asked.update(parameters)

        def submit(self, function: Training) -> list[str]:
            return function.argv

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    argv = ["--config-file", str(config), "--stage", "boxes"]
    resources = {"nodes": 8, "processes": 4, "gpus": 4, "cpus": 6, "hours": 1.5}
    assert submit(argv, **resources, options={"partition": "gpu"}) == argv
    assert asked == {
        "folder": str(tmp_path / "output" / "jobs"),
        "cluster": None,
        "name": "detr_d2",
        "nodes": 8,
        "tasks_per_node": 4,
        "gpus_per_node": 4,
        "cpus_per_task": 6,
        "timeout_min": 90,
        "slurm_srun_args": ["--kill-on-bad-exit=1"],
        "slurm_additional_parameters": {"partition": "gpu"},
    }


# --- tools/submit.py ---


def run_tool(load_tool, monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["submit.py", *arguments])
    load_tool("submit").main()


def test_the_tool_tells_its_options_from_those_of_training(
    load_tool, monkeypatch, config, capsys, tmp_path
):
    pytest.importorskip("submitit")
    own = ["--cluster", "debug", "--processes", "1", "--gpus", "0", "--slurm", "partition=gpu"]
    of_training = ["--config-file", str(config), "--stage", "boxes", "SEED", "3"]
    submitted = []
    monkeypatch.setattr(Training, "__init__", lambda self, argv: submitted.append(list(argv)))
    run_tool(load_tool, monkeypatch, *own, *of_training)
    assert submitted == [of_training]
    assert f"What it prints: {tmp_path / 'output' / 'jobs'}" in capsys.readouterr().out


def test_without_submitit_the_extra_is_named(load_tool, monkeypatch, config):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SystemExit) as caught:
        run_tool(load_tool, monkeypatch, "--config-file", str(config))
    assert caught.value.code.startswith("error: Submitting jobs needs submitit")
    assert "pip install 'detr_d2[submit]'" in caught.value.code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config-file", "nowhere.yaml"], "error: There is no config file 'nowhere.yaml'"),
        (["--slurm", "gpu"], "error: --slurm gpu: "),
    ],
)
def test_mistakes_are_told_before_anything_is_queued(load_tool, monkeypatch, arguments, said):
    pytest.importorskip("submitit")
    with pytest.raises(SystemExit) as caught:
        run_tool(load_tool, monkeypatch, *arguments)
    assert str(caught.value.code).startswith(said)

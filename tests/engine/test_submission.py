"""Jobs of submitit: their resources, their training, and resuming after an interruption."""

from __future__ import annotations

import pickle
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from detr_d2.cli.program import parse_arguments
from detr_d2.cli.submission import Training, submit

RESOURCES = {"nodes": 1, "processes": 1, "gpus": 0, "cpus": 1, "hours": 0.5}


@pytest.fixture
def config(make_fast_cfg, tmp_path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(make_fast_cfg(tmp_path / "output", "SOLVER.STAGES", ["boxes"]).dump())
    return path


@pytest.fixture
def quiet(monkeypatch) -> None:
    """Prevents loggers that would stay for the whole session."""
    for setup in ("setup_logger", "default_setup"):
        monkeypatch.setattr(f"detr_d2.cli.run_process.{setup}", lambda *args, **kwargs: None)


def test_a_job_trains(config, quiet, tmp_path):
    """submitit's executor for debugging runs the job at once in this process."""
    pytest.importorskip("submitit")
    seed = ["SEED", "3"]
    args = parse_arguments("train", ["--config-file", str(config), *seed])
    job = submit(args, cluster="debug", **RESOURCES)
    job.result()
    assert (tmp_path / "output" / "boxes" / "model_final.pth").exists()


def test_an_interrupted_job_resumes(config):
    pytest.importorskip("submitit")
    args = parse_arguments("train", ["--config-file", str(config), "SEED", "3"])
    resumed = parse_arguments("train", ["--resume", "--config-file", str(config), "SEED", "3"])
    again = pickle.loads(pickle.dumps(Training(args))).checkpoint().function
    assert isinstance(again, Training) and again.args == resumed != args
    assert again.checkpoint().function.args == resumed


def test_what_is_asked_of_slurm(config, monkeypatch, tmp_path):
    submitit = pytest.importorskip("submitit")
    asked = {}

    class Executor:
        def __init__(self, folder: str, cluster: str | None) -> None:
            asked.update(folder=folder, cluster=cluster)

        def update_parameters(self, **parameters: object) -> None:
            asked.update(parameters)

        def submit(self, function: Training) -> Namespace:
            return function.args

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    args = parse_arguments("train", ["--config-file", str(config), "--stage", "boxes"])
    resources = {"nodes": 8, "processes": 4, "gpus": 4, "cpus": 6, "hours": 1.5}
    assert submit(args, **resources, options={"partition": "gpu"}) == args
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


# --- detr-d2 submit ---


def test_the_command_takes_a_training_and_what_the_cluster_is_asked_for(
    run_cli, monkeypatch, config, capsys, tmp_path
):
    pytest.importorskip("submitit")
    own = ["--cluster", "debug", "--processes", "1", "--gpus", "0", "--slurm", "partition=gpu"]
    of_training = ["--config-file", str(config), "--stage", "boxes", "SEED", "3"]
    submitted = []
    monkeypatch.setattr(Training, "__init__", lambda self, args: submitted.append(vars(args)))
    assert run_cli("submit", *own, *of_training) == 0
    assert vars(parse_arguments("train", of_training)).items() <= submitted[0].items()
    assert f"Its output: {tmp_path / 'output' / 'jobs'}" in capsys.readouterr().out


def test_without_submitit_the_extra_is_named(run_cli, monkeypatch, config):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SystemExit) as caught:
        run_cli("submit", "--config-file", config)
    assert caught.value.code.startswith("error: Submitting jobs needs submitit")
    assert "pip install 'detr_d2[submit]'" in caught.value.code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config-file", "nowhere.yaml"], "error: There is no config file 'nowhere.yaml'"),
        (["--slurm", "gpu", "--config-file", "nowhere.yaml"], "error: --slurm gpu: "),
    ],
)
def test_mistakes_are_told_before_anything_is_queued(run_cli, arguments, said):
    pytest.importorskip("submitit")
    with pytest.raises(SystemExit) as caught:
        run_cli("submit", *arguments)
    assert str(caught.value.code).startswith(said)

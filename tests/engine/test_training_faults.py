"""Errors from outside end a training with one line, and its last checkpoint is intact."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detr_d2.cli import run_process as command
from detr_d2.cli.program import parse_arguments
from detr_d2.data.shapes.shapes_dataset import register_shapes_split
from detr_d2.engine import train
from detr_d2.engine.training_faults import TrainingError, explained
from detr_d2.engine.training_loop import Trainer
from detr_d2.engine.training_stages import final_weights

DATASET = "shapes_that_vanish"


@pytest.fixture
def cfg(make_fast_cfg, tmp_path, registry):
    """The config of a training with its own copy of the data."""
    register_shapes_split(DATASET, tmp_path / "data", "train", 4)
    return make_fast_cfg(
        tmp_path / "output",
        *("DATASETS.TRAIN", (DATASET,), "SOLVER.STAGES", ["boxes"]),
        *("SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 1),
    )


@pytest.fixture
def run_command(tmp_path) -> Callable[..., tuple[int, str]]:
    """Runs ``detr-d2 train`` in another process; returns its status and its standard error.

    ``(cfg, accident)``; the accident, called with the trainer, happens before the third step.
    """

    def in_child(cfg, accident: Callable[[Trainer], None]) -> None:
        os.dup2(os.open(tmp_path / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        sys.stderr = open(2, "w", closefd=False)
        command.setup_logger = command.default_setup = lambda *args, **kwargs: None
        run_step = Trainer.run_step

        def step(trainer: Trainer) -> None:
            if trainer.iter == 2:
                accident(trainer)
            run_step(trainer)

        Trainer.run_step = step
        path = tmp_path / "config.yaml"
        path.write_text(cfg.dump())
        command.run(parse_arguments("train", ["--config-file", str(path)]))

    def run(cfg, accident: Callable[[Trainer], None] = lambda trainer: None) -> tuple[int, str]:
        # The process is forked, because a fresh one would spend seconds on imports.
        child = multiprocessing.get_context("fork").Process(target=in_child, args=(cfg, accident))
        child.start()
        child.join()
        return child.exitcode, (tmp_path / "stderr").read_text()

    return run


def assert_one_error(status: int, stderr: str, *said: str) -> None:
    assert status == 1
    (line,) = [line for line in stderr.splitlines() if line.startswith("error")]
    assert stderr.rstrip().endswith(line)
    assert [part for part in said if part not in line] == []


def assert_goes_on(cfg) -> None:
    """The training resumes from the last checkpoint before the accident."""
    folder = Path(cfg.OUTPUT_DIR, "boxes")
    assert (folder / "last_checkpoint").read_text() == "model_0000001.pth"
    assert sorted(path.name for path in folder.glob("*.pth*")) == [
        "model_0000000.pth",
        "model_0000001.pth",
    ]
    train(cfg, resume=True)
    assert Path(final_weights(cfg, "boxes")).exists()


def assert_last_is_whole(cfg, stderr: str) -> None:
    folder = Path(cfg.OUTPUT_DIR, "boxes")
    last = folder / (folder / "last_checkpoint").read_text()
    assert f"The last checkpoint, {last}, is intact: --resume goes on from it." in stderr
    assert last.name >= "model_0000001.pth" and not Path(final_weights(cfg, "boxes")).exists()
    assert torch.load(last, weights_only=True)["trainer"]["iteration"] < 40


LAST = "boxes/model_0000001.pth, is intact: --resume goes on from it."


def test_without_an_accident_all_is_well(cfg, run_command):
    assert run_command(cfg) == (0, "")


def test_a_full_disk(cfg, run_command):
    """A limit of 20 kB for the files of the process stands for the full disk."""

    def fill(trainer: Trainer) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    status, stderr = run_command(cfg, fill)
    said = ("Iteration 2 of stage 'boxes'", "can't be written: File too large", "Make room")
    assert_one_error(status, stderr, *said, "boxes/model_0000002.pth", LAST)
    assert_goes_on(cfg)


@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_vanish(cfg, run_command, tmp_path, workers):
    cfg.DATALOADER.NUM_WORKERS = workers
    cfg.SOLVER.MAX_ITER = 40  # workers read ahead
    status, stderr = run_command(cfg, lambda trainer: shutil.rmtree(tmp_path / "data"))
    assert_one_error(status, stderr, f"{tmp_path}/data/", ".jpg", "is its disk still mounted?")
    assert_last_is_whole(cfg, stderr)


def test_a_process_that_loads_data_dies(cfg, run_command):
    cfg.DATALOADER.NUM_WORKERS = 1
    cfg.SOLVER.MAX_ITER = 40

    def kill(trainer: Trainer) -> None:
        (worker,) = trainer._data_loader_iter._workers
        os.kill(worker.pid, signal.SIGKILL)

    status, stderr = run_command(cfg, kill)
    assert_one_error(status, stderr, "process that loads data died", "DATALOADER.NUM_WORKERS")
    assert_last_is_whole(cfg, stderr)


@pytest.mark.parametrize("name", ["a_file", "a_file/output"])
def test_a_folder_that_cannot_be_written_to(cfg, run_command, tmp_path, name):
    (tmp_path / "a_file").touch()
    cfg.OUTPUT_DIR = str(tmp_path / name)
    said = ("error: OUTPUT_DIR: nothing can be written to", name, "Name another folder")
    assert_one_error(*run_command(cfg), *said)


# --- what is said of which error ---


def explanation(error: Exception, last: str = "") -> str:
    with pytest.raises(TrainingError) as caught, explained("masks", lambda: 7, lambda: last):
        raise error
    assert caught.value.__cause__ is error
    return str(caught.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "No space left on device. Make room where"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "/dev/shm"),
        (ConnectionResetError(104, "Connection reset by peer"), "DATALOADER.NUM_WORKERS"),
        (torch.OutOfMemoryError("CUDA out of memory."), "SOLVER.ACCUMULATION_STEPS"),
        (ValueError("a.png: cannot be read."), "'masks': a.png: cannot be read. No checkpoint"),
        (
            ValueError("Caught ValueError in DataLoader worker process 0.\nTrace\nValueError: b\n"),
            "'masks': ValueError: b. No checkpoint",
        ),
    ],
)
def test_an_error_becomes_one_line(error, said):
    message = explanation(error)
    assert message.startswith("Iteration 7 of stage 'masks': ") and "\n" not in message
    assert said in message and message.endswith("No checkpoint had been saved yet.")
    assert "The last checkpoint, a.pth, is intact" in explanation(error, "a.pth")


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), TypeError("x"), KeyError("y")])
def test_mistakes_in_the_code_keep_their_traceback(error):
    with pytest.raises(type(error)) as caught, explained("masks", lambda: 7, lambda: ""):
        raise error
    assert caught.value is error

"""A training that is killed at any moment and resumed gives the same model as an unbroken one."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import IO

import pytest
import torch

from detr_d2.engine import train
from detr_d2.engine.training_stages import final_weights

KILLS = int(os.environ.get("DETR_D2_KILLS", "20"))
STAGES = ("boxes", "masks")
# Forked: a fresh process would spend seconds on imports.
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def make_random_cfg(make_fast_cfg) -> Callable:
    """Makes configs of short trainings with dropout, and a checkpoint after each step."""
    return lambda folder: make_fast_cfg(
        folder,
        *("MODEL.DETR.DROPOUT", 0.1, "SOLVER.CHECKPOINT_PERIOD", 1),
        *("SOLVER.ACCUMULATION_STEPS", 2),
        *("SOLVER.MAX_ITER", 3, "SOLVER.MASK_STAGE.MAX_ITER", 3),
    )


def start(cfg, resume: bool = True, prepare: Callable[[], None] | None = None):
    """Starts a process that trains."""

    def run() -> None:
        if prepare is not None:
            prepare()
        train(cfg, resume=resume)

    process = FORK.Process(target=run)
    process.start()
    return process


def finish(cfg) -> None:
    process = start(cfg)
    process.join()
    assert process.exitcode == 0


def final_models(cfg) -> list[dict[str, torch.Tensor]]:
    return [torch.load(final_weights(cfg, s), weights_only=True)["model"] for s in STAGES]


def assert_equal_bitwise(ours: list[dict], theirs: list[dict]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        assert [key for key in one if not torch.equal(one[key], other[key])] == []


@pytest.fixture(scope="module")
def unbroken(make_random_cfg, tmp_path_factory) -> tuple[list[dict], float]:
    """The models of an unbroken training, and its time in seconds."""
    cfg = make_random_cfg(tmp_path_factory.mktemp("unbroken"))
    begun = time.perf_counter()
    finish(cfg)
    return final_models(cfg), time.perf_counter() - begun


def test_killed_at_random_moments(make_random_cfg, tmp_path, unbroken, record_figure):
    """``DETR_D2_KILLS`` is the number of kills. A run is killed again and again until it ends."""
    expected, seconds = unbroken
    moments = random.Random(0)
    killed = runs = 0
    while killed < KILLS:
        cfg = make_random_cfg(tmp_path / str(runs))
        runs += 1
        while not Path(final_weights(cfg, "masks")).exists() and killed < KILLS:
            process = start(cfg)
            process.join(moments.uniform(0, seconds))
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL)
        # Even a finished run is resumed: a kill may have left a part of a file to remove.
        finish(cfg)
        assert_equal_bitwise(final_models(cfg), expected)
        record_figure("kills survived", killed, f"{{}} of {KILLS}")
    assert not list(tmp_path.rglob("*.tmp"))


# --- the moments that matter, one by one ---


class DeadlyFiles:
    """Kills its process at the n-th write of a checkpoint or renaming of a file."""

    def __init__(self, last_moment: int) -> None:
        self.left = last_moment

    def __call__(self) -> None:
        self.torch_save = torch.save
        torch.save = self.save_in_halves
        os.replace = self.watched(os.replace)
        Path.rename = self.watched(Path.rename)

    def moment(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(self, function: Callable) -> Callable:
        def call(*args: object) -> object:
            self.moment()
            result = function(*args)
            self.moment()
            return result

        return call

    def save_in_halves(self, content: object, file: IO[bytes]) -> None:
        buffer = BytesIO()
        self.torch_save(content, buffer)
        data = buffer.getvalue()
        file.write(data[: len(data) // 2])
        file.flush()
        self.moment()
        file.write(data[len(data) // 2 :])


def test_killed_at_each_moment_of_beginning_anew_and_of_the_switch(
    make_fast_cfg, tmp_path, record_figure
):
    """A new run in the folder of an older one has either begun or not; no file is lost."""
    older, newer = (make_fast_cfg(tmp_path / name, "SEED", i) for i, name in enumerate("ab"))
    finish(older)
    finish(newer)
    of_older, of_newer = final_models(older), final_models(newer)
    for moment in itertools.count(1):
        folder = tmp_path / str(moment)
        shutil.copytree(tmp_path / "a", folder)
        cfg = make_fast_cfg(folder, "SEED", 1)
        process = start(cfg, resume=False, prepare=DeadlyFiles(moment))
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        finish(cfg)
        assert_equal_bitwise(final_models(cfg), of_older if moment == 1 else of_newer)
        kept = folder if moment == 1 else folder / "previous_1"
        assert_equal_bitwise(final_models(make_fast_cfg(kept)), of_older)
        assert not list(folder.rglob("*.tmp"))
        shutil.rmtree(folder)
    # Two folders are set aside. Each stage has one checkpoint, in two parts, and last_checkpoint.
    assert moment - 1 == 2 * 2 + 2 * (1 + 2 + 2)
    record_figure("moments of writing survived", moment - 1)

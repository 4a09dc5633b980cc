"""The place of a process in its group, and groups that torchrun or srun started."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm

from detr_d2.engine import launch as module
from detr_d2.engine.launch import launch, place_of_process

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "here",
    "MASTER_PORT": "1234",
}
SLURM = {
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "123456",
}


@pytest.fixture
def scontrol(tmp_path, monkeypatch) -> None:
    """Stands for SLURM's scontrol, which knows two machines."""
    path = tmp_path / "bin" / "scontrol"
    path.parent.mkdir()
    path.write_text(
        '#!/bin/sh\n[ "$*" = "show hostnames gpu[07-08]" ] && printf "gpu07\\ngpu08\\n"'
    )
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


def test_a_process_by_itself():
    assert place_of_process({}) is None
    # These are batch scripts and interactive shells in an allocation of SLURM.
    assert place_of_process({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) is None
    assert place_of_process({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}) is None


def test_torchrun_says_it_all():
    assert place_of_process({**TORCHRUN, "HOME": "/"}) == TORCHRUN
    with pytest.raises(ValueError, match="as by torchrun, but not LOCAL_RANK, MASTER_PORT"):
        place_of_process(
            {k: v for k, v in TORCHRUN.items() if k not in ("LOCAL_RANK", "MASTER_PORT")}
        )
    assert place_of_process({"RANK": "0", "WORLD_SIZE": "1"})["WORLD_SIZE"] == "1"


def test_slurm_says_it_in_other_words(scontrol):
    expected = {**TORCHRUN, "MASTER_ADDR": "gpu07", "MASTER_PORT": str(20000 + 123456 % 40000)}
    assert place_of_process(SLURM) == expected
    named = {"MASTER_ADDR": "here", "MASTER_PORT": "1234"}
    assert place_of_process({**SLURM, **named}) == TORCHRUN
    assert (
        place_of_process({**SLURM, **TORCHRUN, "RANK": "6"})["RANK"] == "6"
    )  # as submitit sets them


@pytest.mark.parametrize("tasks", ["4,3", "4(x2),1", ""])
def test_slurm_with_unequal_machines_is_refused(scontrol, tasks):
    with pytest.raises(ValueError, match="--ntasks-per-node"):
        place_of_process({**SLURM, "SLURM_STEP_TASKS_PER_NODE": tasks})


def test_slurm_without_its_tools(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="set MASTER_ADDR to its name"):
        place_of_process(SLURM)


def arguments(num_gpus: int = 1) -> argparse.Namespace:
    return argparse.Namespace(num_gpus=num_gpus, num_machines=1, machine_rank=0, dist_url="auto")


def test_processes_are_not_started_twice(monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="leave out --num-gpus"):
        launch(pytest.fail, arguments(num_gpus=2))


def test_one_process_needs_no_group(monkeypatch):
    called = []
    args = arguments()
    launch(called.append, args)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    launch(called.append, args)
    assert called == [args, args] and not torch.distributed.is_initialized()


def _report(args: argparse.Namespace) -> None:
    total = torch.tensor(2.0 ** comm.get_rank())
    torch.distributed.all_reduce(total)
    place = (comm.get_rank(), comm.get_world_size(), comm.get_local_rank(), comm.get_local_size())
    Path(args.folder, f"{comm.get_rank()}").write_text(json.dumps([*place, total.item()]))


def _member(environment: dict[str, str], folder: Path) -> None:
    os.environ.update(environment)
    args = arguments()
    args.folder = folder
    launch(_report, args)
    assert not torch.distributed.is_initialized()


@pytest.mark.skipif(torch.cuda.is_available(), reason="would share one GPU")
@pytest.mark.parametrize("by", ["torchrun", "slurm"])
def test_processes_find_each_other(tmp_path, by):
    """Four processes of two machines; this machine stands for both."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        master = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(found.getsockname()[1])}
    processes = []
    for rank in range(4):
        own = (str(rank), "4", str(rank % 2), "2")
        environment = dict(zip(module.VARIABLES, own, strict=False))
        if by == "slurm":
            names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
            environment = dict(zip(names, own, strict=False))
            environment["SLURM_STEP_TASKS_PER_NODE"] = "2(x2)"
        # Processes are forked, because fresh ones would spend seconds on imports.
        fork = multiprocessing.get_context("fork")
        processes.append(fork.Process(target=_member, args=({**environment, **master}, tmp_path)))
        processes[-1].start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    for rank in range(4):
        found = json.loads((tmp_path / str(rank)).read_text())
        assert found == [rank, 4, rank % 2, 2, 1 + 2 + 4 + 8]


def _fail(args: argparse.Namespace) -> None:
    raise SystemExit("error: said by the process itself")


@pytest.mark.skipif(torch.cuda.is_available(), reason="would start the processes on GPUs")
def test_processes_that_fail_have_said_why(forked, capfd):
    with pytest.raises(SystemExit) as caught:
        launch(_fail, arguments(num_gpus=2))
    assert caught.value.code == 1
    assert "error: said by the process itself" in capfd.readouterr().err

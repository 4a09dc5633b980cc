"""The processes of a run. Detectron2 starts them here, unless torchrun or SLURM's srun did."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping

import torch
from detectron2.engine import launch as launch_processes
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

# The variables by which torchrun tells a process its place in the group.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launch(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Calls ``main(args)`` in all processes of a run.

    Args:
        main: a function that can be pickled.
        args: ``num_gpus``, ``num_machines``, ``machine_rank`` and ``dist_url`` say which processes
            to start. They are not used if torchrun or srun have started the processes.

    Raises:
        ValueError: the processes run already and the arguments ask for more, or the variables of
            torchrun or SLURM are incomplete.
        SystemExit: a process failed; it has printed its error.
    """
    place = place_of_process(os.environ)
    if place is None:
        try:
            launch_processes(
                main,
                args.num_gpus,
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                args=(args,),
            )
        except ProcessExitedException:
            sys.exit(1)
        return
    if args.num_gpus > 1 or args.num_machines > 1:
        raise ValueError(
            "torchrun or srun have started the processes already: leave out --num-gpus, "
            "--num-machines and --machine-rank."
        )
    if place["WORLD_SIZE"] == "1":
        main(args)
        return
    os.environ.update(place)
    _join(int(place["LOCAL_RANK"]), int(place["LOCAL_WORLD_SIZE"]))
    try:
        main(args)
        # Older PyTorch sometimes waits forever if another process has left the group already.
        comm.synchronize()
    finally:
        torch.distributed.destroy_process_group()


def place_of_process(environment: Mapping[str, str]) -> dict[str, str] | None:
    """The values of torchrun's ``VARIABLES``, from torchrun or from SLURM; None without both.

    Raises:
        ValueError: some are missing, or the machines of a SLURM job have different numbers of
            processes.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        missing = [name for name in VARIABLES if name not in environment]
        if missing and environment["WORLD_SIZE"] != "1":
            raise ValueError(
                f"RANK and WORLD_SIZE are set, as by torchrun, but not {', '.join(missing)}."
            )
        return {name: environment[name] for name in VARIABLES if name in environment}
    # This tells tasks of srun from the batch script and from interactive shells.
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return _place_in_slurm(environment)
    return None


def _place_in_slurm(environment: Mapping[str, str]) -> dict[str, str]:
    each = re.fullmatch(r"(\d+)(?:\(x\d+\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    if each is None:
        raise ValueError(
            "All machines of a SLURM job need the same number of processes, but "
            f"SLURM_STEP_TASKS_PER_NODE is {environment.get('SLURM_STEP_TASKS_PER_NODE')!r}: call "
            "srun with --ntasks-per-node."
        )
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": each[1],
        "MASTER_ADDR": environment.get("MASTER_ADDR") or _first_host(environment),
        # The port has to be the same in all processes; another job rarely has it.
        "MASTER_PORT": environment.get("MASTER_PORT")
        or str(20000 + int(environment["SLURM_JOB_ID"]) % 40000),
    }


def _first_host(environment: Mapping[str, str]) -> str:
    """The name of the machine that runs the process of rank 0."""
    nodes = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_JOB_NODELIST", ""))
    try:
        command = ["scontrol", "show", "hostnames", nodes]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise ValueError(
            f"`{' '.join(command)}` doesn't tell the first machine of the job ({error}): set "
            "MASTER_ADDR to its name."
        ) from error


def _join(local_rank: int, local_size: int) -> None:
    """Makes this process a member of the group, as Detectron2's launcher does."""
    has_gpu = torch.cuda.is_available()
    torch.distributed.init_process_group(
        "nccl" if has_gpu else "gloo", init_method="env://", timeout=DEFAULT_TIMEOUT
    )
    comm.create_local_process_group(local_size)
    if has_gpu:  # srun may show each process only one GPU.
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    comm.synchronize()

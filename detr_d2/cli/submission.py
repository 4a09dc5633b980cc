"""Training jobs on a SLURM cluster, with submitit (the extra ``submit``)."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from copy import copy
from typing import Any

from detr_d2.cli.run_process import run
from detr_d2.config import load_config
from detr_d2.engine.launch import launch
from detr_d2.extras import require_extra


class Training:
    """The function that each process of a job calls."""

    def __init__(self, args: Namespace) -> None:
        """
        Args:
            args: of a training, as ``detr-d2 train`` parses them.
        """
        self.args = args

    def __call__(self) -> None:
        import submitit

        environment = submitit.helpers.TorchDistributedEnvironment()
        environment.export(set_cuda_visible_devices=False)  # sets torchrun's variables
        launch(run, self.args)

    def checkpoint(self) -> Any:
        """The job that continues this one, after a timeout or a preemption."""
        import submitit

        args = copy(self.args)
        args.resume = True
        return submitit.helpers.DelayedSubmission(Training(args))


def submit(
    args: Namespace,
    *,
    nodes: int,
    processes: int,
    gpus: int,
    cpus: int,
    hours: float,
    cluster: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Any:
    """Submits a training.

    Args:
        args: of a training, as ``detr-d2 train`` parses them.
        nodes: the number of machines.
        processes: the number of processes on each machine.
        gpus: the number of GPUs on each machine.
        cpus: the number of CPU cores for each process.
        hours: the time limit, after which the job is queued again and resumes.
        cluster: submitit's name of a cluster; None means SLURM.
        options: further options of sbatch, such as ``{"partition": "gpu"}``.

    Returns:
        submitit's job.

    Raises:
        ImportError: submitit is missing.
        OSError, ValueError: the config can't be read or has values that cannot work.
    """
    require_extra("submit", "Submitting jobs needs", ("submitit",))
    import submitit

    cfg = load_config(args.config_file, args.opts)
    executor = submitit.AutoExecutor(os.path.join(cfg.OUTPUT_DIR, "jobs"), cluster=cluster)
    executor.update_parameters(
        name="detr_d2",
        nodes=nodes,
        tasks_per_node=processes,
        gpus_per_node=gpus,
        cpus_per_task=cpus,
        timeout_min=round(60 * hours),
        # Without this, the other processes would wait for a process that died.
        slurm_srun_args=["--kill-on-bad-exit=1"],
        slurm_additional_parameters=dict(options or {}),
    )
    return executor.submit(Training(args))

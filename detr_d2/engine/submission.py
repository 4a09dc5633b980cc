"""Jobs on a SLURM cluster, by submitit: the extra ``submit``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from detr_d2.config import load_config
from detr_d2.engine.command import run, training_parser
from detr_d2.engine.launch import launch


def require_submitit() -> ModuleType:
    """Imports submitit.

    Raises:
        ImportError: it isn't there; the message names the extra that brings it.
    """
    try:
        import submitit
    except ImportError as error:
        raise ImportError(
            "Submitting jobs needs submitit, which this environment lacks: "
            "pip install 'detr_d2[submit]', or in a checkout pip install -e '.[submit]'."
        ) from error
    return submitit


class Training:
    """What each process of a job runs."""

    def __init__(self, argv: Sequence[str]) -> None:
        """Takes the arguments of ``tools/train_net.py``."""
        self.argv = list(argv)

    def __call__(self) -> None:
        environment = require_submitit().helpers.TorchDistributedEnvironment()
        environment.export(set_cuda_visible_devices=False)  # by torchrun's names
        launch(run, training_parser().parse_args(self.argv))

    def checkpoint(self) -> Any:
        """What the job goes on with after its time is up or others have pushed it aside."""
        argv = self.argv if "--resume" in self.argv else ["--resume", *self.argv]
        return require_submitit().helpers.DelayedSubmission(Training(argv))


def submit(
    argv: Sequence[str],
    *,
    nodes: int,
    processes: int,
    gpus: int,
    cpus: int,
    hours: float,
    cluster: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Any:
    """Submits a run.

    Args:
        argv: the arguments of ``tools/train_net.py``.
        nodes: machines.
        processes: on each of them.
        gpus: on each of them.
        cpus: cores of each process.
        hours: after which the job is queued again, to resume.
        cluster: submitit's name of where to run; None: SLURM.
        options: more of sbatch, such as ``{"partition": "gpu"}``.

    Returns:
        submitit's job.

    Raises:
        ImportError: submitit is missing.
        OSError, ValueError: the config can't be read or has values that cannot work.
    """
    submitit = require_submitit()
    args = training_parser().parse_args(list(argv))
    cfg = load_config(args.config_file, args.opts)
    executor = submitit.AutoExecutor(os.path.join(cfg.OUTPUT_DIR, "jobs"), cluster=cluster)
    executor.update_parameters(
        name="detr_d2",
        nodes=nodes,
        tasks_per_node=processes,
        gpus_per_node=gpus,
        cpus_per_task=cpus,
        timeout_min=round(60 * hours),
        # When one process dies, the others would wait for it.
        slurm_srun_args=["--kill-on-bad-exit=1"],
        slurm_additional_parameters=dict(options or {}),
    )
    return executor.submit(Training(argv))

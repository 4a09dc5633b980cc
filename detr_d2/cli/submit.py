"""Submits a training to a SLURM cluster; its arguments are those of detr-d2 train, and some more.

detr-d2 submit --nodes 2 --slurm partition=gpu --config-file detr_panoptic.yaml

When its time is up, or another job takes its place, the job is queued again and resumes. The
command needs pip install 'detr_d2[submit]'.
"""

from __future__ import annotations

import argparse

from detr_d2.cli import train

check_arguments = train.check_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the job, and those of a training."""
    job = parser.add_argument_group("the job")
    job.add_argument("--nodes", type=int, default=1, help="number of machines (default: 1)")
    job.add_argument(
        "--processes", type=int, default=8, help="processes on each machine (default: 8)"
    )
    job.add_argument(
        "--gpus", type=int, help="GPUs of each machine (default: one for each process)"
    )
    job.add_argument("--cpus", type=int, default=8, help="CPU cores of each process (default: 8)")
    job.add_argument(
        "--hours", type=float, default=24, help="hours until it is queued again (default: 24)"
    )
    job.add_argument("--cluster", help="slurm (the default), or local for this machine")
    job.add_argument(
        "--slurm",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="more options of sbatch, by their long names",
    )
    train.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Submits the job, and prints where its output goes."""
    from detr_d2.cli.submission import submit

    job = submit(
        args,
        nodes=args.nodes,
        processes=args.processes,
        gpus=args.processes if args.gpus is None else args.gpus,
        cpus=args.cpus,
        hours=args.hours,
        cluster=args.cluster,
        options=read_options(args.slurm),
    )
    print(f"Job {job.job_id}. Its output: {job.paths.stdout}")


def read_options(texts: list[str]) -> dict[str, str]:
    """Options of sbatch, given as KEY=VALUE.

    Raises:
        ValueError: one has another form.
    """
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"--slurm {text}: an option has the form KEY=VALUE.")
        options[name] = value
    return options

#!/usr/bin/env python
"""Submits a training to a SLURM cluster. What isn't below goes to tools/train_net.py as it is:

tools/submit.py --nodes 2 --slurm partition=gpu --config-file configs/detr_panoptic.yaml

When its time is up, or others push it aside, the job is queued again and resumes.
"""

import argparse
import sys

from detr_d2 import load_config  # noqa: F401  first: it quiets the warnings of Detectron2's own imports

# isort: split
from detr_d2.engine.submission import submit


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--nodes", type=int, default=1, help="machines (default: 1)")
    parser.add_argument("--processes", type=int, default=8, help="on each machine (default: 8)")
    parser.add_argument("--gpus", type=int, help="on each machine (default: one for each process)")
    parser.add_argument("--cpus", type=int, default=8, help="cores of each process (default: 8)")
    parser.add_argument("--hours", type=float, default=24, help="until it resumes (default: 24)")
    parser.add_argument("--cluster", help="slurm (the default) or local: this machine")
    parser.add_argument(
        "--slurm",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="more options of sbatch, by their long names",
    )
    return parser.parse_known_args()


def read_options(texts: list[str]) -> dict[str, str]:
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"--slurm {text}: an option has the form KEY=VALUE.")
        options[name] = value
    return options


def main() -> None:
    args, of_training = parse_args()
    try:
        job = submit(
            of_training,
            nodes=args.nodes,
            processes=args.processes,
            gpus=args.processes if args.gpus is None else args.gpus,
            cpus=args.cpus,
            hours=args.hours,
            cluster=args.cluster,
            options=read_options(args.slurm),
        )
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"Job {job.job_id}. What it prints: {job.paths.stdout}")


if __name__ == "__main__":
    main()

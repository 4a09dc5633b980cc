"""Trains and evaluates a model.

detr-d2 train --config-file detr_panoptic.yaml
detr-d2 train --config-file detr_panoptic.yaml --eval-only MODEL.WEIGHTS model.pth

The command runs the stages of SOLVER.STAGES one after the other: "boxes", then "masks". With
--num-gpus it starts several processes; torchrun and SLURM's srun may start them instead.
"""

from __future__ import annotations

import argparse
import os

from detr_d2.cli.shared import add_config_file, add_overrides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds Detectron2's own arguments of a training, ``--stage`` and ``--report``."""
    add_config_file(parser)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the newest checkpoint in OUTPUT_DIR, whatever its stage",
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate, without training")
    parser.add_argument(
        "--stage",
        help="run only this stage: boxes, masks, or joint, which trains the whole model together",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="with --eval-only: OUTPUT_DIR/inference/<dataset>/report.html shows where the model "
        "fails",
    )
    parser.add_argument(
        "--num-gpus", type=int, default=1, metavar="N", help="GPUs on each machine (default: 1)"
    )
    parser.add_argument(
        "--num-machines", type=int, default=1, metavar="N", help="machines in all (default: 1)"
    )
    parser.add_argument(
        "--machine-rank", type=int, default=0, metavar="N", help="rank of this machine, from 0 on"
    )
    parser.add_argument(
        "--dist-url",
        default=f"tcp://127.0.0.1:{_port_of_user()}",
        metavar="URL",
        help="URL at which the processes meet, for torch.distributed (default: %(default)s)",
    )
    add_overrides(parser)


def check_arguments(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuses arguments that don't go together."""
    if args.report and not args.eval_only:
        parser.error("--report goes with --eval-only")


def run(args: argparse.Namespace) -> None:
    """Trains or evaluates, in as many processes as were asked for."""
    from detr_d2.cli.run_process import run as run_in_process
    from detr_d2.engine.launch import launch

    launch(run_in_process, args)


def _port_of_user() -> int:
    """A port that is probably free, and that two people on one machine don't share."""
    user = os.getuid() if hasattr(os, "getuid") else 1
    return 2**15 + 2**14 + user % 2**14

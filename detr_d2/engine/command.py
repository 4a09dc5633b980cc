"""A run from the command line: its options, and errors in one line."""

from __future__ import annotations

import argparse
import sys

from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from detr_d2.config import STAGES, load_config
from detr_d2.data.whole_file import check_writable
from detr_d2.engine.faults import NotFiniteError, TrainingError
from detr_d2.engine.trainer import evaluate_only, prepare, train


def training_parser(description: str = "") -> argparse.ArgumentParser:
    """Detectron2's options, ``--stage`` and ``--report``."""
    parser = default_argument_parser(epilog=None)
    parser.description = description
    parser.add_argument(
        "--stage",
        choices=STAGES,
        help="run this stage alone; 'joint' trains detector and mask head together",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="with --eval-only: OUTPUT_DIR/inference/<dataset>/report.html shows where the model "
        "fails",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Trains or evaluates in this process.

    Args:
        args: of ``training_parser``.

    Raises:
        SystemExit: with status 1 and one line, where something is missing, wrong, or was lost.
    """
    overrides = list(args.opts)
    if args.stage:
        overrides += ["SOLVER.STAGES", [args.stage]]
    try:
        if args.report and not args.eval_only:
            raise ValueError("--report goes with --eval-only.")
        cfg = load_config(args.config_file, overrides)
        check_writable(cfg.OUTPUT_DIR, "OUTPUT_DIR")
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="detr_d2")
        prepare(cfg, args.eval_only)
        cfg.freeze()
        default_setup(cfg, args)
        if args.eval_only:
            evaluate_only(cfg, report=args.report)
        else:
            train(cfg, resume=args.resume)
    except NotFiniteError as error:  # in all processes
        sys.exit(f"error: {error}" if comm.is_main_process() else 1)
    except (OSError, KeyError, ValueError, TrainingError) as error:
        process = f" (process {comm.get_rank()})" if comm.get_world_size() > 1 else ""
        sys.exit(f"error{process}: {error}")

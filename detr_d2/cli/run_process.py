"""One process of a run: it sets up logging, loads the config and prints errors in one line."""

from __future__ import annotations

import argparse
import sys

from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from detr_d2.apps.report import ReportCollector
from detr_d2.config import load_config
from detr_d2.config_files import find_config_file
from detr_d2.engine.trainer import evaluate_only, prepare, train
from detr_d2.engine.training_faults import NotFiniteError, TrainingError
from detr_d2.file_io import check_writable


def run(args: argparse.Namespace) -> None:
    """Trains or evaluates in this process.

    Args:
        args: as ``detr-d2 train`` parses them.

    Raises:
        SystemExit: status 1 and an error in one line, if the run can't start or can't go on.
    """
    overrides = list(args.opts)
    if args.stage:
        overrides += ["SOLVER.STAGES", [args.stage]]
    try:
        config_file = find_config_file(args.config_file)
        cfg = load_config(config_file, overrides)
        check_writable(cfg.OUTPUT_DIR, "OUTPUT_DIR")
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="detr_d2")
        cfg = prepare(cfg, args.eval_only)
        cfg.freeze()
        default_setup(cfg, argparse.Namespace(**{**vars(args), "config_file": config_file}))
        if args.eval_only:
            evaluate_only(cfg, reporter=ReportCollector if args.report else None)
        else:
            train(cfg, resume=args.resume)
    except NotFiniteError as error:  # This error is raised in all processes.
        sys.exit(f"error: {error}" if comm.is_main_process() else 1)
    except (OSError, KeyError, ValueError, TrainingError) as error:
        process = f" (process {comm.get_rank()})" if comm.get_world_size() > 1 else ""
        sys.exit(f"error{process}: {error}")

#!/usr/bin/env python
"""Trains and evaluates: ``tools/train_net.py --config-file configs/detr_panoptic.yaml``.

Runs the stages of SOLVER.STAGES one after the other: "boxes", then "masks".
"""

import sys

import detr_d2  # noqa: F401  first, since it quiets the warnings of Detectron2's own imports

# isort: split
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from detr_d2 import load_config
from detr_d2.checkpoint import CheckpointError
from detr_d2.config import STAGES
from detr_d2.engine import evaluate_only, prepare, train


def parse_args():
    parser = default_argument_parser(epilog=None)
    parser.description = __doc__
    parser.add_argument(
        "--stage",
        choices=STAGES,
        help="run this stage alone; 'joint' trains detector and mask head together",
    )
    return parser.parse_args()


def main(args) -> None:
    overrides = list(args.opts)
    if args.stage:
        overrides += ["SOLVER.STAGES", [args.stage]]
    try:
        cfg = load_config(args.config_file, overrides)
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="detr_d2")
        prepare(cfg, args.eval_only)
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"error: {error}")
    cfg.freeze()
    default_setup(cfg, args)
    try:
        if args.eval_only:
            evaluate_only(cfg)
        else:
            train(cfg, resume=args.resume)
    except CheckpointError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    args = parse_args()
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )

#!/usr/bin/env python
"""Trains and evaluates: ``tools/train_net.py --config-file configs/detr_panoptic.yaml``.

Runs the stages of SOLVER.STAGES one after the other: "boxes", then "masks". With --num-gpus it
starts several processes; torchrun and SLURM's srun may start them instead.
"""

import sys

from detr_d2 import load_config  # noqa: F401  first: it quiets the warnings of Detectron2's own imports

# isort: split
from detr_d2.engine.command import run, training_parser
from detr_d2.engine.launch import launch


def parse_args():
    return training_parser(__doc__).parse_args()


def main() -> None:
    try:
        launch(run, parse_args())
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

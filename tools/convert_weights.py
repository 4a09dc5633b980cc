#!/usr/bin/env python
"""Converts a checkpoint of any known kind to this project's names.

tools/convert_weights.py SOURCE OUTPUT

Nothing needs converting before it is used: MODEL.WEIGHTS takes all kinds as they are. This shows
what is in a file, and writes it once and for all. SOURCE is a file, a folder of Hugging Face, or
the URL of either.
"""

import argparse
import sys

from detr_d2 import load_config  # noqa: F401  first: it quiets the warnings of Detectron2's own imports

# isort: split
from detectron2.utils.logger import setup_logger

from detr_d2.checkpoint import convert_file


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("output", metavar="OUTPUT", help="a .pth file that isn't there yet")
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="cut a class head by COCO's ids to the classes of this dataset, e.g. "
        "coco_2017_val_panoptic; without, all rows are kept",
    )
    parser.add_argument("--tensors", action="store_true", help="show every tensor, not modules")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    setup_logger(name="detr_d2")
    try:
        print(convert_file(args.source, args.output, args.dataset, every_tensor=args.tensors))
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

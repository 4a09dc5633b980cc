#!/usr/bin/env python
"""Follows one image through a model and writes a page that shows every step, explain.html.

tools/explain.py --config-file configs/detr_panoptic.yaml --input IMAGE --output FOLDER \\
    MODEL.WEIGHTS model.pth

The page needs no other file; its pictures are written beside it as PNG.
"""

import argparse
import sys

from detr_d2 import load_config  # first: it quiets the warnings of Detectron2's own imports

# isort: split
from detectron2.utils.logger import setup_logger

from detr_d2.explanation import explain_file


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument(
        "--input", metavar="IMAGE", help="an image file (the first image of DATASETS.TEST)"
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where the page goes")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="config keys and values, e.g. MODEL.WEIGHTS x.pth"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    setup_logger(name="detr_d2")
    try:
        explain_file(load_config(args.config_file, args.opts), args.input, args.output)
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""Draws the panoptic picture of images.

tools/demo.py --config-file configs/detr_panoptic.yaml --input FILES|FOLDER|GLOB --output FOLDER \\
    MODEL.WEIGHTS model.pth
"""

import argparse
import sys

from detr_d2 import load_config  # first: it quiets the warnings of Detectron2's own imports

# isort: split
from detectron2.utils.logger import setup_logger

from detr_d2.prediction import predict_files


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--input", required=True, nargs="+", help="files, folders or globs")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where pictures go")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="config keys and values, e.g. MODEL.WEIGHTS x.pth"
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    setup_logger(name="detr_d2")
    try:
        failed = predict_files(load_config(args.config_file, args.opts), args.input, args.output)
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"error: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

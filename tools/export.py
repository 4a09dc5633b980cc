#!/usr/bin/env python
"""Exports a model to one file that other runtimes run, merging and all.

tools/export.py --config-file configs/detr_panoptic.yaml --output detr.onnx MODEL.WEIGHTS model.pth

The form "panoptic" takes one image, resized to the network's size, and gives ids, classes, scores,
areas and boxes of its segments. The form "raw" takes a batch and gives logits, boxes and masks.
"""

import argparse
import sys

from detr_d2 import load_config  # first: it quiets the warnings of Detectron2's own imports

# isort: split
from detectron2.utils.logger import setup_logger

from detr_d2.export import ExportOptions, export_model


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--output", required=True, metavar="FILE", help="ends in .onnx or .pt2")
    parser.add_argument("--format", choices=["onnx", "torch"], default="onnx")
    parser.add_argument("--form", choices=["panoptic", "raw"], default="panoptic")
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="for runtimes that need one: the only size of images; without, any",
    )
    parser.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help="make masks of the K best queries; without, of those that compete for pixels, or of "
        "all (raw)",
    )
    parser.add_argument(
        "--triton",
        metavar="FOLDER",
        help="a model repository of Triton that gets the model and its config.pbtxt as well",
    )
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="config keys and values, e.g. MODEL.WEIGHTS x.pth"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    setup_logger(name="detr_d2")
    size = tuple(args.size) if args.size else None
    try:
        options = ExportOptions(args.format, args.form, size, args.top_k)
        export_model(load_config(args.config_file, args.opts), args.output, options, args.triton)
    except (ImportError, OSError, KeyError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

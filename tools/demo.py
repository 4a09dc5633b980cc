#!/usr/bin/env python
"""Shows what a model sees: in images, in videos, or in front of a webcam.

tools/demo.py --config-file configs/detr_panoptic.yaml --input FILES|FOLDER|GLOB --output FOLDER \\
    MODEL.WEIGHTS model.pth
tools/demo.py --config-file configs/detr_panoptic.yaml --webcam 0 MODEL.WEIGHTS model.pth

Images become pictures, and videos become videos, in which a segment keeps its number and colour.
Labels show the ids that the panoptic JSON has. A webcam is shown in a window until q or Ctrl-C is
pressed; with --output, it is recorded instead, and with --window both.
"""

import argparse
import sys

from detr_d2 import load_config  # first: it quiets the warnings of Detectron2's own imports

# isort: split
from detectron2.utils.logger import setup_logger

from detr_d2.prediction import DemoOptions, predict_files, predict_webcam

# What a shell expects of a program that Ctrl-C has ended.
INTERRUPTED = 130


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", nargs="+", help="images and videos: files, folders or globs")
    source.add_argument("--webcam", nargs="?", const=0, type=int, metavar="N", help="default: 0")
    parser.add_argument("--output", metavar="FOLDER", help="where pictures and videos go")
    view = parser.add_mutually_exclusive_group()
    for name, what in {
        "instance": "things alone",
        "semantic": "classes, without instances",
        "boxes": "boxes of things",
        "masks": "one picture for each segment, in a grid (images)",
    }.items():
        view.add_argument(f"--{name}", action="store_const", const=name, dest="view", help=what)
    view.add_argument("--mask", type=int, metavar="ID", help="the segment of this id alone")
    parser.add_argument(
        "--save-panoptic",
        action="store_true",
        help="write predictions.json and predictions/*.png as well, COCO's panoptic format",
    )
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="images predicted at a time (default: 1)"
    )
    parser.add_argument("--window", action="store_true", help="show frames while they are written")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="config keys and values, e.g. MODEL.WEIGHTS x.pth"
    )
    args = parser.parse_args()
    if args.output is None and (args.input or args.save_panoptic):
        parser.error("--output is missing: the folder where pictures go")
    return args


def main() -> int:
    args = parse_args()
    setup_logger(name="detr_d2")
    failed = 0
    try:
        options = DemoOptions(
            args.view or "panoptic", args.mask, args.batch, args.save_panoptic, args.window
        )
        cfg = load_config(args.config_file, args.opts)
        if args.input:
            failed = predict_files(cfg, args.input, args.output, options)
        else:
            predict_webcam(cfg, args.webcam, args.output, options)
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        return INTERRUPTED
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

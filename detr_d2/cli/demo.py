"""Shows what a model sees: in images, in videos, or in front of a webcam.

detr-d2 demo --config-file detr_panoptic.yaml --input FILES|FOLDER|GLOB --output FOLDER \\
    MODEL.WEIGHTS model.pth
detr-d2 demo --config-file detr_panoptic.yaml --webcam 0 MODEL.WEIGHTS model.pth

Images become pictures, and videos become videos, in which a segment keeps its number and colour.
Labels show the ids that the panoptic JSON has. A webcam is shown in a window until q or Ctrl-C is
pressed; with --output, it is recorded instead, and with --window both.
"""

from __future__ import annotations

import argparse

from detr_d2.cli.shared import add_model, load_model_config

VIEWS = {
    "instance": "only things",
    "semantic": "classes, without instances",
    "boxes": "boxes of things",
    "masks": "one picture for each segment, in a grid (images)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the input, the view and the output."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", nargs="+", help="images and videos: files, folders or globs")
    source.add_argument("--webcam", nargs="?", const=0, type=int, metavar="N", help="default: 0")
    parser.add_argument("--output", metavar="FOLDER", help="where pictures and videos go")
    view = parser.add_mutually_exclusive_group()
    for name, what in VIEWS.items():
        view.add_argument(f"--{name}", action="store_const", const=name, dest="view", help=what)
    view.add_argument("--mask", type=int, metavar="ID", help="only the segment of this id")
    parser.add_argument(
        "--save-panoptic",
        action="store_true",
        help="write predictions.json and predictions/*.png as well, COCO's panoptic format",
    )
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="images predicted at a time (default: 1)"
    )
    parser.add_argument("--window", action="store_true", help="show frames while they are written")
    add_model(parser)


def check_arguments(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Requires the output if something is written."""
    if args.output is None and (args.input or args.save_panoptic):
        parser.error("--output is missing: the folder where pictures go")


def run(args: argparse.Namespace) -> int:
    """Predicts; the status is 1 if something was left out."""
    from detr_d2.apps.demo import DemoOptions, predict_files, predict_webcam

    options = DemoOptions(
        args.view or "panoptic", args.mask, args.batch, args.save_panoptic, args.window
    )
    cfg = load_model_config(args)
    if args.input:
        return 1 if predict_files(cfg, args.input, args.output, options) else 0
    predict_webcam(cfg, args.webcam, args.output, options)
    return 0

"""Converts a checkpoint of any known kind to this project's names.

detr-d2 convert SOURCE OUTPUT

No file has to be converted before it is used: MODEL.WEIGHTS takes all kinds as they are. This
command shows what is in a file, and writes it with this project's names. SOURCE is a file, a folder
of Hugging Face, or the URL of either.
"""

from __future__ import annotations

import argparse

from detr_d2.cli.shared import show_log


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the source, the output, and the dataset whose classes are kept."""
    parser.add_argument("source", metavar="SOURCE", help="weights of any kind, see docs/weights.md")
    parser.add_argument("output", metavar="OUTPUT", help="a new .pth file")
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="keep only this dataset's classes, e.g. coco_2017_val_panoptic, of a class head whose "
        "rows are COCO's ids; without it, all rows are kept",
    )
    parser.add_argument("--tensors", action="store_true", help="show every tensor, not modules")


def run(args: argparse.Namespace) -> None:
    """Converts, and prints what became of each part."""
    from detr_d2.checkpoint import convert_file

    show_log()
    print(convert_file(args.source, args.output, args.dataset, every_tensor=args.tensors))

"""Converts a checkpoint of any known kind to this project's names.

detr-d2 convert SOURCE OUTPUT

Nothing needs converting before it is used: MODEL.WEIGHTS takes all kinds as they are. This shows
what is in a file, and writes it once and for all. SOURCE is a file, a folder of Hugging Face, or
the URL of either.
"""

from __future__ import annotations

import argparse

from detr_d2.cli.shared import show_log


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what is converted, to what, and for which classes."""
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("output", metavar="OUTPUT", help="a .pth file that isn't there yet")
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="cut a class head by COCO's ids to the classes of this dataset, e.g. "
        "coco_2017_val_panoptic; without, all rows are kept",
    )
    parser.add_argument("--tensors", action="store_true", help="show every tensor, not modules")


def run(args: argparse.Namespace) -> None:
    """Converts, and prints what became of each part."""
    from detr_d2.checkpoint import convert_file

    show_log()
    print(convert_file(args.source, args.output, args.dataset, every_tensor=args.tensors))

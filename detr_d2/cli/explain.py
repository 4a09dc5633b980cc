"""Follows one image through a model and writes a page that shows every step, explain.html.

detr-d2 explain --config-file detr_panoptic.yaml --input IMAGE --output FOLDER \\
    MODEL.WEIGHTS model.pth

The page needs no other file; its pictures are written beside it as PNG.
"""

from __future__ import annotations

import argparse

from detr_d2.cli.shared import add_model, load_model_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the image, the output and the model."""
    parser.add_argument(
        "--input", metavar="IMAGE", help="an image file (default: the first of DATASETS.TEST)"
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where the page goes")
    add_model(parser)


def run(args: argparse.Namespace) -> None:
    """Writes the page."""
    from detr_d2.apps.explain import explain_file

    explain_file(load_model_config(args), args.input, args.output)

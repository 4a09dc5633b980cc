"""Exports a model, with the merging of masks, to one file that other runtimes run.

detr-d2 export --config-file detr_panoptic.yaml --output detr.onnx MODEL.WEIGHTS model.pth

The form "panoptic" takes one image, resized to the network's size, and gives ids, classes, scores,
areas and boxes of its segments. The form "raw" takes a batch and gives logits, boxes and masks.
"""

from __future__ import annotations

import argparse

from detr_d2.cli.shared import add_model, load_model_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the file, its form, and the model."""
    parser.add_argument("--output", required=True, metavar="FILE", help="a .onnx or .pt2 file")
    parser.add_argument(
        "--format",
        choices=["onnx", "torch"],
        default="onnx",
        help="ONNX, or a program of torch.export (default: %(default)s)",
    )
    parser.add_argument(
        "--form",
        choices=["panoptic", "raw"],
        default="panoptic",
        help="what the model gives: segments, or all queries (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="the only size of images, for runtimes that need one; without it, any size",
    )
    parser.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help="make masks of the K best queries; without it, of those that compete for pixels, or "
        "of all (raw)",
    )
    parser.add_argument(
        "--triton",
        metavar="FOLDER",
        help="also write the model and its config.pbtxt to this model repository of Triton",
    )
    add_model(parser)


def run(args: argparse.Namespace) -> None:
    """Writes the file."""
    from detr_d2.export import ExportOptions, export_model

    size = tuple(args.size) if args.size else None
    options = ExportOptions(args.format, args.form, size, args.top_k)
    export_model(load_model_config(args), args.output, options, args.triton)

"""Draws the panoptic picture of images, with an exported model.

python -m detr_d2.deploy MODEL IMAGES... --output FOLDER [--save-panoptic]
"""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the model, the images and the output."""
    parser.add_argument("model", metavar="MODEL", help="an ONNX file of detr-d2 export")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="files or folders")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where pictures go")
    parser.add_argument(
        "--save-panoptic",
        action="store_true",
        help="also write predictions.json and predictions/*.png, in COCO's panoptic format",
    )
    parser.add_argument(
        "--categories",
        metavar="JSON",
        help="COCO's categories, whose ids, names and colours replace those in the model",
    )


def run(args: argparse.Namespace) -> int:
    """Draws the pictures; the status is 1 where something was left out."""
    from detr_d2.deploy.model_info import read_categories
    from detr_d2.deploy.onnx_predictor import OnnxPredictor
    from detr_d2.deploy.prediction_files import predict_files

    try:
        categories = read_categories(args.categories) if args.categories else None
        predictor = OnnxPredictor(args.model, image_format="RGB", categories=categories)
        failed = predict_files(
            predictor, args.images, args.output, save_panoptic=args.save_panoptic
        )
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print(f"interrupted; what was done is in {args.output}", file=sys.stderr)
        return 130
    return 1 if failed else 0


def main() -> int:
    """Runs the command line; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m detr_d2.deploy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())

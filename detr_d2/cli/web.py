"""Shows what a model sees in a browser: upload an image, change thresholds, click a segment.

detr-d2 web --config-file detr_panoptic.yaml MODEL.WEIGHTS model.pth

The page is served only to this machine, at http://127.0.0.1:7860, until Ctrl-C. It needs
pip install 'detr_d2[web]', but no network.
"""

from __future__ import annotations

import argparse

from detr_d2.cli.shared import add_model, load_model_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds where the page is served, and the model."""
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; any but the default lets other machines in, without a password",
    )
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    parser.add_argument(
        "--max-upload-mb",
        type=float,
        default=20,
        metavar="MB",
        help="largest size of an image file, in megabytes (default: 20)",
    )
    add_model(parser)


def run(args: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C."""
    from detr_d2.apps.web import serve

    cfg = load_model_config(args)
    serve(cfg, args.host, args.port, args.max_upload_mb)

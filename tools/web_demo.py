#!/usr/bin/env python
"""Shows what a model sees in a browser: upload an image, change thresholds, click a segment.

tools/web_demo.py --config-file configs/detr_panoptic.yaml MODEL.WEIGHTS model.pth

The page is served to this machine alone, at http://127.0.0.1:7860, until Ctrl-C. It needs
pip install 'detr_d2[web]', but no network.
"""

import argparse
import sys

from detr_d2 import load_config  # first: it quiets the warnings of Detectron2's own imports

# isort: split
from detectron2.utils.logger import setup_logger

from detr_d2.web import serve


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; anything but the default lets others in, without a password",
    )
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    parser.add_argument(
        "--max-upload-mb",
        type=float,
        default=20,
        metavar="MB",
        help="largest image file (default: 20)",
    )
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="config keys and values, e.g. MODEL.WEIGHTS x.pth"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    setup_logger(name="detr_d2")
    try:
        cfg = load_config(args.config_file, args.opts)
        serve(cfg, args.host, args.port, args.max_upload_mb)
    except (ImportError, OSError, KeyError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""Looks for all that would break or bias training in a panoptic dataset.

tools/check_dataset.py --config-file configs/detr_panoptic.yaml --output report.json
tools/check_dataset.py --image-root FOLDER --panoptic-root FOLDER --panoptic-json FILE

Reads every image and every panoptic PNG. The exit status is 1 where something would break.
"""

import argparse
import os
import sys

from detr_d2 import load_config  # first: it quiets the warnings of Detectron2's own imports

# isort: split
from detr_d2.checking import check_dataset, check_datasets, write_reports


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", metavar="FILE", help="check its DATASETS.TRAIN and TEST")
    parser.add_argument("--image-root", metavar="FOLDER")
    parser.add_argument("--panoptic-root", metavar="FOLDER")
    parser.add_argument("--panoptic-json", metavar="FILE")
    parser.add_argument("--output", metavar="FILE", help="write the report there, as JSON")
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count(),
        metavar="N",
        help="processes that read images (default: the number of cores; 0: this one)",
    )
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="with --config-file: config keys and values"
    )
    args = parser.parse_args()
    paths = (args.image_root, args.panoptic_root, args.panoptic_json)
    if bool(args.config_file) == any(paths) or any(paths) != all(paths):
        parser.error("give --config-file, or --image-root, --panoptic-root and --panoptic-json")
    if args.opts and not args.config_file:
        parser.error(f"not known: {' '.join(args.opts)}")
    if args.workers < 0:
        parser.error("--workers cannot be negative")
    return args


def main() -> int:
    args = parse_args()
    paths = (args.image_root, args.panoptic_root, args.panoptic_json)
    reports = []
    try:
        if args.config_file:
            found = check_datasets(load_config(args.config_file, args.opts), args.workers)
        else:
            found = [check_dataset(*paths, workers=args.workers)]
        for report in found:
            print(report, end="\n\n")
            reports.append(report)
        if args.output:
            write_reports(reports, args.output)
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"error: {error}")
    return 1 if any(report.breaks for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())

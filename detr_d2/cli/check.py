"""Looks for everything that would break or bias training in a panoptic dataset.

detr-d2 check --config-file detr_panoptic.yaml --output report.json
detr-d2 check --image-root FOLDER --panoptic-root FOLDER --panoptic-json FILE

The command reads every image and every panoptic PNG. Its exit status is 1 if something would break.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from detr_d2.cli.shared import add_config_file, add_overrides

if TYPE_CHECKING:
    from detr_d2.data.check import CheckReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the datasets, given by a config or by their files."""
    add_config_file(parser, "config whose DATASETS.TRAIN and TEST are checked: ", required=False)
    parser.add_argument("--image-root", metavar="FOLDER", help="folder of the images")
    parser.add_argument("--panoptic-root", metavar="FOLDER", help="folder of the panoptic PNGs")
    parser.add_argument("--panoptic-json", metavar="FILE", help="the panoptic JSON")
    parser.add_argument("--output", metavar="FILE", help="write the report there, as JSON")
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count(),
        metavar="N",
        help="processes that read images (default: the number of cores; 0: only this one)",
    )
    add_overrides(parser)


def check_arguments(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Requires either a config or all three paths."""
    paths = (args.image_root, args.panoptic_root, args.panoptic_json)
    if bool(args.config_file) == any(paths) or any(paths) != all(paths):
        parser.error("give --config-file, or --image-root, --panoptic-root and --panoptic-json")
    if args.workers < 0:
        parser.error("--workers cannot be negative")


def run(args: argparse.Namespace) -> int:
    """Prints a report on each dataset; the status is 1 if something would break."""
    from detr_d2.data.check import write_reports

    reports = []
    for report in _reports(args):
        print(report, end="\n\n")
        reports.append(report)
    if args.output:
        write_reports(reports, args.output)
    return 1 if any(report.breaks for report in reports) else 0


def _reports(args: argparse.Namespace) -> Iterable[CheckReport]:
    """The report on each dataset. Only a config, or keys that change it, need Detectron2."""
    paths = (args.image_root, args.panoptic_root, args.panoptic_json)
    if not args.config_file and not args.opts:
        from detr_d2.data.check import check_dataset

        return [check_dataset(*paths, workers=args.workers)]
    from detr_d2.config import load_config
    from detr_d2.data.check import check_dataset, check_datasets
    from detr_d2.data.image_file import ImageOptions

    # Without a file, the config has the default values.
    cfg = load_config(args.config_file, args.opts)
    if args.config_file:
        return check_datasets(cfg, args.workers)
    options = {
        "num_queries": cfg.MODEL.DETR.NUM_QUERIES,
        "crowds_as_things": cfg.DATASETS.CROWDS_AS_THINGS,
        "image_options": ImageOptions.from_config(cfg),
    }
    return [check_dataset(*paths, **options, workers=args.workers)]

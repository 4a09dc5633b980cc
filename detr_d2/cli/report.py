"""Writes a report on saved predictions, of one run or of two side by side.

detr-d2 report RUN [RUN2] --config-file FILE
detr-d2 report RUN [RUN2] --dataset NAME

RUN is a folder with predictions.json and predictions/, which evaluation writes with
MODEL.DETR.TEST.SAVE_PREDICTIONS True, or the OUTPUT_DIR of that evaluation. With the model itself,
detr-d2 train --eval-only --report writes a report that shows more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detr_d2.cli.shared import add_config_file, show_log


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the runs and their dataset."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="one run, or two")
    add_config_file(parser, "config of the runs, for dataset and threshold: ", required=False)
    parser.add_argument("--dataset", metavar="NAME", help="a registered dataset")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="where report.html goes (default: the last RUN)",
    )


def check_arguments(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Requires one run or two, and a dataset."""
    if len(args.runs) > 2:
        parser.error("give one RUN, or two")
    if not (args.config_file or args.dataset):
        parser.error("name the dataset: --config-file FILE or --dataset NAME")


def run(args: argparse.Namespace) -> None:
    """Writes the report and prints its summary."""
    from detr_d2.apps.report import report_on_saved
    from detr_d2.config import load_config
    from detr_d2.data.image_file import DEFAULT_OPTIONS, ImageOptions
    from detr_d2.data.register import register_from_config

    show_log()
    dataset, score_thresh, image_options = args.dataset, None, DEFAULT_OPTIONS
    if args.config_file:
        cfg = load_config(args.config_file)
        register_from_config(cfg)
        image_options = ImageOptions.from_config(cfg)
        score_thresh = cfg.MODEL.DETR.TEST.SCORE_THRESH
        if not dataset:
            if len(cfg.DATASETS.TEST) != 1:
                raise ValueError(
                    f"{args.config_file}: DATASETS.TEST names {len(cfg.DATASETS.TEST)} datasets. "
                    "Choose one by --dataset NAME."
                )
            dataset = cfg.DATASETS.TEST[0]
    last = args.runs[-1]
    output = args.output or (last if last.is_dir() else last.parent)
    print(
        report_on_saved(
            args.runs, dataset, output, score_thresh=score_thresh, image_options=image_options
        )
    )

#!/usr/bin/env python
"""Writes a report on saved predictions, of one run or of two side by side.

tools/report.py RUN [RUN2] --config-file FILE
tools/report.py RUN [RUN2] --dataset NAME

RUN is a folder with predictions.json and predictions/, as evaluation writes it with
MODEL.DETR.TEST.SAVE_PREDICTIONS True, or the OUTPUT_DIR that it was run with. The model itself
gives a report that knows more: tools/train_net.py --eval-only --report.
"""

import argparse
import sys
from pathlib import Path

from detr_d2 import load_config  # first: it quiets the warnings of Detectron2's own imports

# isort: split
from detectron2.utils.logger import setup_logger

from detr_d2.data.register import register_from_config
from detr_d2.reporting import report_on_saved


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="one or two")
    parser.add_argument(
        "--config-file", metavar="FILE", help="of the runs: tells the dataset and the threshold"
    )
    parser.add_argument("--dataset", metavar="NAME", help="a registered dataset")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="for report.html (default: the last RUN)"
    )
    args = parser.parse_args()
    if len(args.runs) > 2:
        parser.error("one RUN, or two")
    if not (args.config_file or args.dataset):
        parser.error("name the dataset: --config-file FILE or --dataset NAME")
    return args


def main() -> None:
    args = parse_args()
    setup_logger(name="detr_d2")
    try:
        dataset, score_thresh = args.dataset, None
        if args.config_file:
            cfg = load_config(args.config_file)
            register_from_config(cfg)
            score_thresh = cfg.MODEL.DETR.TEST.SCORE_THRESH
            if not dataset:
                if len(cfg.DATASETS.TEST) != 1:
                    raise ValueError(
                        f"{args.config_file}: DATASETS.TEST names {len(cfg.DATASETS.TEST)} "
                        "datasets. Choose one by --dataset NAME."
                    )
                dataset = cfg.DATASETS.TEST[0]
        run = args.runs[-1]
        output = args.output or (run if run.is_dir() else run.parent)
        print(report_on_saved(args.runs, dataset, output, score_thresh=score_thresh))
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

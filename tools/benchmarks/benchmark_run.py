"""Runs the whole benchmark, or a part of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
import transformers

from benchmarks.benchmark_report import BenchmarkReport
from benchmarks.benchmark_settings import BenchmarkSettings
from benchmarks.dataset_files import run_files
from benchmarks.evaluation import run_evaluation
from benchmarks.export import run_export
from benchmarks.inference import run_inference
from benchmarks.instance_ap import run_average_precision
from benchmarks.loading import run_loading
from benchmarks.peer_steps import run_box_stage, run_mask_stage
from benchmarks.plot import draw
from benchmarks.start_up import run_start_up
from benchmarks.training import run_training

logger = logging.getLogger(__name__)

PARTS = {
    "startup": run_start_up,
    "inference": run_inference,
    "training": run_training,
    "boxes": run_box_stage,
    "masks": run_mask_stage,
    "loading": run_loading,
    "evaluation": run_evaluation,
    "ap": run_average_precision,
    "files": run_files,
}
# Not part of "all": it needs the extras "export" and "deploy", and minutes to export.
OTHER_PARTS = {"export": run_export}


def run_benchmark(
    parts: Sequence[str], settings: BenchmarkSettings, folder: str, command: Sequence[str]
) -> str:
    """Measures, and writes ``benchmark.json``, ``.md`` and ``.png``, even after an interruption.

    Args:
        parts: keys of ``PARTS`` or ``OTHER_PARTS``, and "all" for those of ``PARTS``.
        settings: settings of the benchmark.
        folder: the folder of the files.
        command: the command line, which the report quotes.

    Returns:
        The tables, in Markdown.

    Raises:
        ValueError: the settings can't be met.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(settings.threads)
    report = BenchmarkReport(folder, settings, command)
    try:
        for name, run in {**PARTS, **OTHER_PARTS}.items():
            if name in parts or ("all" in parts and name in PARTS):
                logger.info("== %s ==", name)
                run(settings, report)
    finally:
        report.write()
        draw(report.content, report.folder / "benchmark.png")
    return report.markdown()

"""How long people wait until a command or an import is ready, each in a process of its own."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable

from benchmarks.benchmark_report import BenchmarkReport
from benchmarks.benchmark_settings import BenchmarkSettings
from benchmarks.inference import measure_times

logger = logging.getLogger(__name__)

# Python's arguments. The first one is what the others are compared with.
PROCESSES: dict[str, list[str]] = {
    "import detectron2.engine": ["-c", "import detectron2.engine"],
    "import detr_d2, detectron2.engine": ["-c", "import detr_d2, detectron2.engine"],
    "import detr_d2.meta_architecture, detectron2.engine": [
        "-c",
        "import detr_d2.meta_architecture, detectron2.engine",
    ],
    "import torch": ["-c", "import torch"],
    "import onnxruntime": ["-c", "import onnxruntime"],
    "import detr_d2": ["-c", "import detr_d2"],
    "detr-d2 train --help": ["-m", "detr_d2", "train", "--help"],
    "detr-d2 prepare semantic --help": ["-m", "detr_d2", "prepare", "semantic", "--help"],
    "python -m detr_d2.deploy --help": ["-m", "detr_d2.deploy", "--help"],
}


def run_start_up(settings: BenchmarkSettings, report: BenchmarkReport) -> None:
    """Times whole processes, and fills the report's section "start_up"."""
    logger.info("Starting %d processes in turns", len(PROCESSES))
    runs = {name: _process(arguments) for name, arguments in PROCESSES.items()}
    measure_times(runs, settings, report, report.section("start_up").setdefault("seconds", {}))


def _process(arguments: list[str]) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

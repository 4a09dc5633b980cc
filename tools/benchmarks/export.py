"""Compares the exported graph in onnxruntime with PyTorch."""

from __future__ import annotations

import logging
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.agreement import Picture, equal_ids
from benchmarks.benchmark_report import BenchmarkReport
from benchmarks.benchmark_settings import BenchmarkSettings
from benchmarks.inference import make_workload, measure_times
from benchmarks.subjects import Subject, Workload, build_ours
from benchmarks.timing import seconds_of
from benchmarks.weights import save_random_weights
from detr_d2.export import ExportOptions
from detr_d2.export.onnx_file import to_onnx
from detr_d2.export.traced_program import Interface, trace
from detr_d2.extras import require_extra

logger = logging.getLogger(__name__)


def run_export(settings: BenchmarkSettings, report: BenchmarkReport) -> None:
    """Measures both on the same weights and image, and fills the report's section "export".

    Raises:
        ImportError: onnxruntime is missing.
        ValueError: the device is a GPU.
    """
    if settings.device != "cpu":
        raise ValueError("--device: exported graphs are measured on a CPU.")
    found = report.section("export")
    with TemporaryDirectory(prefix="detr_d2_benchmark_") as folder:
        logger.info("Making weights")
        save_random_weights(folder, settings.architecture, settings.size, settings.seed)
        workload = make_workload(folder, settings)
        logger.info("Exporting")
        subjects = {"panoptic": build_ours(workload)}
        found["export_seconds"] = seconds_of(
            lambda: subjects.update(onnxruntime=_exported(workload, settings, found)), "cpu"
        )
        pictures = {name: subject.picture(subject.run()) for name, subject in subjects.items()}
        found["equal_ids"] = equal_ids(pictures["onnxruntime"], pictures["panoptic"])
        report.write()
        runs = {name: subject.run for name, subject in subjects.items()}
        measure_times(runs, settings, report, found.setdefault("seconds", {}))


def _exported(workload: Workload, settings: BenchmarkSettings, found: dict) -> Subject:
    """The graph in onnxruntime, with as many threads as PyTorch."""
    require_extra("benchmark", "This part of the benchmark needs", ("onnxruntime",))
    import onnxruntime

    options = ExportOptions()
    program = trace(workload.load_ours(), options)
    model = to_onnx(program, Interface.of(options), metadata={}).SerializeToString()
    found["megabytes"] = len(model) / 1e6
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = settings.threads
    session = onnxruntime.InferenceSession(model, session_options)
    feed = {
        "image": workload.image()[None].numpy(),
        "output_size": np.array(workload.size, dtype=np.int64),
    }
    return Subject(lambda: session.run(["ids", "classes"], feed), _picture)


def _picture(result: list[np.ndarray]) -> Picture:
    ids, classes = result
    return Picture(torch.from_numpy(ids), dict(enumerate(classes.tolist(), start=1)))

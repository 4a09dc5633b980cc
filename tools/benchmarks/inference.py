"""Compares our paths of inference with our peers' on the same weights and image."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from oracles.plain_panoptic import PlainPanoptic
from tqdm import tqdm

from benchmarks.agreement import equal_ids, equal_segments
from benchmarks.benchmark_report import BenchmarkReport
from benchmarks.benchmark_settings import BenchmarkSettings
from benchmarks.memory import peak_memory
from benchmarks.stage_times import (
    STAGES,
    matrix_rate,
    plain_flops,
    stage_flops,
    stage_seconds,
)
from benchmarks.subjects import (
    SUBJECTS,
    Subject,
    Workload,
    build_ours,
    prepare_run,
    score_threshold,
    their_masks_merged_plainly,
)
from benchmarks.timing import interleaved
from benchmarks.weights import random_image, save_random_weights
from detr_d2.modeling import DETR

logger = logging.getLogger(__name__)


def run_inference(settings: BenchmarkSettings, report: BenchmarkReport) -> None:
    """Measures everything on inference, and fills the report's section "inference"."""
    found = report.section("inference")
    with TemporaryDirectory(prefix="detr_d2_benchmark_") as folder:
        logger.info("Making weights")
        save_random_weights(folder, settings.architecture, settings.size, settings.seed)
        workload = make_workload(folder, settings)
        found["kept_queries"] = settings.kept
        found["score_threshold"] = workload.score_thresh
        logger.info("%d queries score above %.4f", settings.kept, workload.score_thresh)

        names = [name for name in SUBJECTS if settings.compiled or name != "panoptic compiled"]
        subjects = {name: SUBJECTS[name](workload) for name in names}
        found["agreement"] = _agreement(subjects, workload)
        report.write()
        runs = {name: subject.run for name, subject in subjects.items()}
        measure_times(runs, settings, report, found.setdefault("seconds", {}))
        del runs, subjects

        measure_memory(names, settings, report, found, prepare_run, workload)
        _measure_stages(settings, workload, report, found.setdefault("stages", {}))
        if settings.sweeps:
            _measure_sweeps(settings, folder, report, found.setdefault("sweeps", {}))


def make_workload(weights: str, settings: BenchmarkSettings) -> Workload:
    """Chooses the score threshold such that the image keeps ``settings.kept`` queries."""
    workload = Workload(weights, settings.size, 0.0, settings.device, settings.seed)
    logits = class_logits(workload.load_ours(), workload.image())
    return replace(workload, score_thresh=score_threshold(logits, settings.kept))


@torch.no_grad()
def class_logits(model: DETR, image: torch.Tensor) -> torch.Tensor:
    """Q×(K+1) class logits of our model in a 3×H×W image."""
    return model.detector(model.preprocess([{"image": image}])).logits[-1, 0]


def measure_times(
    runs: Mapping[str, Callable[[], object]],
    settings: BenchmarkSettings,
    report: BenchmarkReport,
    seconds: dict,
) -> None:
    """Times functions in turns, and writes the report after every run.

    Args:
        runs: name → function that is timed.
        settings: number of rounds, and device.
        report: the report to write.
        seconds: gets the times of each, in the order of rounds.
    """
    seconds.update({name: [] for name in runs})
    with tqdm(total=settings.repeats * len(runs), desc="Timing", unit="run") as progress:
        for name, taken in interleaved(runs, settings.repeats, settings.device):
            seconds[name].append(taken)
            report.write()
            progress.set_postfix_str(name)
            progress.update()


def measure_memory(
    names: Iterable[str],
    settings: BenchmarkSettings,
    report: BenchmarkReport,
    found: dict,
    prepare: Callable[..., Callable[[], object]],
    *args: object,
) -> None:
    """Measures the peak memory of one run of each, if the settings ask for it.

    Args:
        names: names of what is measured.
        settings: device and threads.
        report: the report to write.
        found: its section, which gets ``memory``, with None if a process was killed.
        prepare: builds one of the names in a process of its own: ``prepare(name, *args)``.
        *args: see ``prepare``.
    """
    if not settings.memory:
        return
    found["memory"] = {}
    for name in names:
        logger.info("Memory of %s", name)
        peak = peak_memory(prepare, name, *args, device=settings.device, threads=settings.threads)
        found["memory"][name] = peak and asdict(peak)
        report.write()


def _agreement(subjects: Mapping[str, Subject], workload: Workload) -> dict[str, dict]:
    """Compares each panoptic picture with that of "plain"."""
    pictures = {}
    for name, subject in tqdm(subjects.items(), desc="Comparing results", unit="subject"):
        if subject.picture is not None:
            pictures[name] = subject.picture(subject.run())
    pictures["transformers, merged by our rules"] = their_masks_merged_plainly(workload)
    plain = pictures["plain"]
    agreement = {}
    for name, picture in pictures.items():
        same = equal_segments(picture, plain)
        logger.info("%s: %.4f %% of pixels in the same segment as by plain", name, 100 * same)
        agreement[name] = {
            "num_segments": len(picture.class_of),
            "equal_segments": same,
            # transformers numbers segments differently
            "equal_ids": None if name == "transformers" else equal_ids(picture, plain),
        }
    return agreement


def _measure_stages(
    settings: BenchmarkSettings, workload: Workload, report: BenchmarkReport, found: dict
) -> None:
    logger.info("Stages")
    found["matrix_flops_per_second"] = {
        name: matrix_rate(getattr(torch, name), settings.device, settings.matrix_side)
        for name in ("float32", "bfloat16")
    }
    run = build_ours(workload).run
    run()
    found["flops"] = stage_flops(run)
    plain = PlainPanoptic(workload.load_ours().requires_grad_(False))
    found["plain_flops"] = plain_flops(plain, workload.image())
    seconds = found["seconds"] = {stage: [] for stage in STAGES}
    for _ in range(settings.repeats):
        for stage, taken in stage_seconds(run, settings.device).items():
            seconds[stage].append(taken)
        report.write()


def _measure_sweeps(
    settings: BenchmarkSettings, folder: str, report: BenchmarkReport, found: dict
) -> None:
    """Times our model while one setting changes; each sweep is timed in turns of its own."""
    values, size = settings.sweeps, settings.size
    model = make_workload(folder, settings).load_ours()

    def with_queries(num_queries: int) -> DETR:
        weights = str(Path(folder) / f"{num_queries}_queries")
        architecture = {**settings.architecture, "num_queries": num_queries}
        save_random_weights(weights, architecture, size, settings.seed)
        return Workload(weights, size, 0.0, settings.device, settings.seed).load_ours()

    sweeps = {
        "kept queries": {str(n): _prediction(model, settings, kept=n) for n in values.kept},
        "all queries": {str(n): _prediction(with_queries(n), settings) for n in values.queries},
        "image size": {
            f"{height}×{width}": _prediction(model, settings, size=(height, width))
            for height, width in values.sizes
        },
        "batch": {str(n): _prediction(model, settings, num_images=n) for n in values.batches},
    }
    for name, runs in sweeps.items():
        logger.info("Sweep: %s", name)
        measure_times(runs, settings, report, found.setdefault(name, {}))
    found["batch"] = {n: [s / int(n) for s in times] for n, times in found["batch"].items()}
    report.write()


def _prediction(
    model: DETR, settings: BenchmarkSettings, *, num_images: int = 1, **changes: object
) -> Callable[[], object]:
    """Returns a prediction on a batch of equal images; ``changes`` override settings."""
    settings = replace(settings, **changes)
    image = random_image(settings.size, torch.Generator().manual_seed(settings.seed))
    threshold = score_threshold(class_logits(model, image), settings.kept)
    panoptic = replace(model.options.panoptic, score_thresh=threshold)
    options = replace(model.options, panoptic=panoptic)

    def run() -> object:
        model.options = options
        return model([{"image": image}] * num_images)

    return run

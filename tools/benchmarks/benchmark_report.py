"""Writes the figures of a benchmark as JSON and as Markdown tables."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import detectron2
import torch
from tabulate import tabulate

from benchmarks.benchmark_settings import BenchmarkSettings
from benchmarks.stage_times import STAGES
from detr_d2 import __version__
from detr_d2.file_io import write_json_atomically

NAME = "benchmark"
# Sections that are one table each: heading, the name of the first column, and what ratios refer to.
TABLES = {
    "start_up": ("Start-up", "process", "detectron2.engine"),
    "box_stage": ("Training step of the box stage beside transformers", "step", "ours"),
    "mask_stage": ("Training step of the mask stage beside transformers", "step", "ours"),
    "loading": ("Loading for a training", "what", "COCO's"),
    "average_precision": ("Average precision of boxes", "evaluation", "ours"),
    "reading": ("Reading a panoptic JSON", "reader", "ours"),
    "writing": ("Writing panoptic PNGs", "writer", "ours"),
}
PACKAGES = ("torch", "torchvision", "transformers", "numpy", "fvcore", "panopticapi-lite")


class BenchmarkReport:
    """Collects figures; ``write`` writes those that are measured so far."""

    def __init__(
        self, folder: str | Path, settings: BenchmarkSettings, command: Sequence[str]
    ) -> None:
        """
        Args:
            folder: the folder of the files, which is created if necessary.
            settings: settings of the benchmark.
            command: the command line.
        """
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.content: dict = {
            "command": list(command),
            "settings": asdict(settings),
            "machine": describe_machine(settings),
            "versions": describe_versions(),
        }

    def section(self, name: str) -> dict:
        """Adds an empty section, which the caller fills."""
        self.content[name] = {}
        return self.content[name]

    def write(self) -> None:
        """Writes ``benchmark.json`` and ``benchmark.md``."""
        add_medians(self.content)
        write_json_atomically(self.content, self.folder / f"{NAME}.json")
        (self.folder / f"{NAME}.md").write_text(self.markdown(), encoding="utf-8")

    def markdown(self) -> str:
        """Returns the tables of all that has been measured so far."""
        return to_markdown(self.content)


def add_medians(content: dict) -> None:
    """Adds ``medians`` beside ``seconds``, and ``ratios`` of medians to the first one.

    Sweeps get medians only.
    """
    for part in ("inference", "training", "evaluation", "export", *TABLES):
        section = content.get(part, {})
        for of_times in (section, section.get("stages", {})):
            if "seconds" in of_times:
                of_times["medians"] = medians(of_times["seconds"])
        if section.get("medians"):
            first = next(iter(section["medians"].values()))
            section["ratios"] = {name: m / first for name, m in section["medians"].items()}
        if "sweeps" in section:
            section["sweep_medians"] = {
                name: medians(points) for name, points in section["sweeps"].items()
            }


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    """The median of each, without those that have no times yet."""
    return {name: statistics.median(times) for name, times in seconds.items() if times}


def describe_machine(settings: BenchmarkSettings) -> dict:
    """Processor, the vector instructions that PyTorch takes, memory, threads and GPU."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    on_gpu = settings.device.startswith("cuda")
    return {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "processor_cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "threads": settings.threads,
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
    }


def describe_versions() -> dict[str, str | None]:
    """Versions of Python and of packages; None if a package isn't installed."""
    versions: dict[str, str | None] = {
        "python": platform.python_version(),
        "detr_d2": __version__,
        "detectron2": detectron2.__version__,
    }
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def _processor() -> str:
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        for line in cpu_info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def to_markdown(content: dict) -> str:
    """The tables of a report's content."""
    parts = [_about(content)]
    if content.get("inference"):
        inference = content["inference"]
        parts += ["## Inference", _inference_table(inference)]
        if "medians" in inference.get("stages", {}):
            parts += ["### Stages of `panoptic`", _stages_table(inference["stages"])]
        for name, points in inference.get("sweep_medians", {}).items():
            rows = [[value, seconds] for value, seconds in points.items()]
            parts += [f"### Sweep: {name}", _table([name, "s per image"], rows)]
    if content.get("training"):
        parts += ["## Ways to take a step of the mask stage", _training_table(content["training"])]
    if content.get("evaluation"):
        parts += ["## Evaluation", _evaluation_table(content["evaluation"])]
    for name, (heading, column, reference) in TABLES.items():
        if content.get(name):
            parts += [f"## {heading}", _plain_table(content[name], column, reference)]
    if content.get("export"):
        parts += ["## Export", _export_table(content["export"])]
    return "\n\n".join(parts) + "\n"


def _about(content: dict) -> str:
    machine, settings, versions = (content[k] for k in ("machine", "settings", "versions"))
    where = machine["gpu"] or f"{machine['processor']} ({machine['instructions']})"
    height, width = settings["size"]
    return (
        f"`{' '.join(content['command'])}`\n\n"
        f"{where}, {machine['threads']} threads, {machine['memory_gib']} GiB; image "
        f"{height}×{width}; {settings['kept']} queries kept; medians of {settings['repeats']} "
        f"interleaved runs; {', '.join(f'{name} {v}' for name, v in versions.items() if v)}."
    )


def _inference_table(found: dict) -> str:
    rows = []
    agreements = found.get("agreement", {})
    for name in found.get("seconds", agreements):
        agreement = agreements.get(name, {})
        rows.append(
            [name, *_time_and_ratio(found, name), *_memory(found, name), _percent(agreement)]
        )
    by_our_rules = "transformers, merged by our rules"
    note = _percent(agreements.get(by_our_rules, {}))
    columns = [
        "subject",
        "median s",
        "× panoptic",
        "peak MiB",
        "rise MiB",
        "same segments as plain",
    ]
    return _table(columns, rows) + f"\n\nMasks of {by_our_rules}: {note} same segments."


def _stages_table(stages: dict) -> str:
    rate = stages["matrix_flops_per_second"]["float32"]
    total = sum(stages["medians"].values())
    rows = []
    for stage in STAGES:
        seconds, flops = stages["medians"].get(stage, 0.0), stages["flops"][stage]
        reached = flops / seconds if seconds and flops else None
        rows.append(
            [
                stage,
                seconds,
                f"{100 * seconds / total:.1f} %" if total else "",
                flops / 1e9,
                stages["plain_flops"][stage] / 1e9,
                reached and reached / 1e9,
                f"{100 * reached / rate:.0f} %" if reached else "",
            ]
        )
    columns = ["stage", "median s", "share", "GFLOP", "GFLOP, plain", "GFLOP/s", "of matrix rate"]
    rates = ", ".join(
        f"{x / 1e9:.3g} GFLOP/s in {name}" for name, x in stages["matrix_flops_per_second"].items()
    )
    return _table(columns, rows) + f"\n\nMatrix products reach {rates}."


def _training_table(found: dict) -> str:
    rows = [
        [name, *_time_and_ratio(found, name), *_memory(found, name), found["first_loss"][name]]
        for name in found.get("first_loss", {})
    ]
    columns = ["step", "median s", "× matched", "peak MiB", "rise MiB", "loss"]
    return _table(columns, rows, floats=("", ".3f", ".2f", ".0f", ".0f", ".6f"))


def _evaluation_table(found: dict) -> str:
    figures = found.get("figures", {})
    rows = [
        [name, *_time_and_ratio(found, name), figures.get(name, {}).get("PQ")]
        for name in found.get("seconds", {})
    ]
    table = _table(["evaluator", "median s", "× ours", "PQ"], rows, ("", ".3f", ".2f", ".6f"))
    if "largest_difference" in found:
        table += f"\n\nLargest difference of PQ, SQ and RQ: {found['largest_difference']:.1e}."
    return table


def _plain_table(found: dict, column: str, reference: str) -> str:
    rows = [
        [name, *_time_and_ratio(found, name), *_memory(found, name)]
        for name in found.get("seconds", {})
    ]
    columns = [column, "median s", f"× {reference}", "peak MiB", "rise MiB"]
    if "memory" not in found:
        columns, rows = columns[:3], [row[:3] for row in rows]
    table = _table(columns, rows, ("", ".3f", ".2f", ".0f", ".0f"))
    return f"{table}\n\n{found['note']}" if "note" in found else table


def _export_table(found: dict) -> str:
    rows = [[name, *_time_and_ratio(found, name)] for name in found.get("seconds", {})]
    table = _table(["subject", "median s", "× panoptic"], rows, ("", ".3f", ".2f"))
    if "equal_ids" in found:
        table += (
            f"\n\n{100 * found['equal_ids']:.3f} % of pixels have the same id in both. Exporting "
            f"took {found['export_seconds']:.0f} s and gave {found['megabytes']:.0f} MB."
        )
    return table


def _time_and_ratio(found: dict, name: str) -> list[float | None]:
    return [found.get("medians", {}).get(name), found.get("ratios", {}).get(name)]


def _memory(found: dict, name: str) -> list[float | None]:
    peak = found.get("memory", {}).get(name) or {}
    return [peak.get("total"), peak.get("rise")]


def _percent(agreement: dict) -> str:
    return f"{100 * agreement['equal_segments']:.3f} %" if agreement else ""


def _table(
    columns: Sequence[str], rows: Iterable[Sequence], floats: Sequence[str] | None = None
) -> str:
    """A Markdown table; None is an empty cell."""
    floats = floats or ["", ".3f", ".2f", ".0f", ".0f", ".0f", ""]
    return tabulate(rows, columns, tablefmt="pipe", floatfmt=tuple(floats), missingval="")

"""Runs the checks on a GPU one after the other, and reports them as JSON and Markdown."""

from __future__ import annotations

import gc
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from tabulate import tabulate

from benchmarks.benchmark_report import describe_machine, describe_versions
from benchmarks.gpu_inference import (
    check_beside_transformers,
    check_compile,
    check_ids,
    check_memory,
    check_speed,
)
from benchmarks.gpu_setup import Bench, CheckFailed, CheckSkipped
from benchmarks.gpu_training import check_ddp, check_losses, check_step
from detr_d2.config_checks import STAGES
from detr_d2.file_io import write_json_atomically, written_whole

logger = logging.getLogger(__name__)

NAME = "gpu_check"
# Number of characters of an error's first line that the report shows.
LONGEST_REASON = 200
NO_TIME = "no time left"
Check = Callable[[Bench], dict]

# The most important checks come first. Compiling takes longest and comes last.
CHECKS: dict[str, Check] = {
    **{
        f"training step: {stage}, {'AMP' if amp else 'float32'}": partial(
            check_step, stage=stage, amp=amp
        )
        for stage in STAGES
        for amp in (False, True)
    },
    "losses against the CPU's": check_losses,
    "DDP in one process": check_ddp,
    "ids against the CPU's, float32": partial(check_ids, precision="float32"),
    "ids against the CPU's, bfloat16": partial(check_ids, precision="bfloat16"),
    "peak memory of a prediction, float32": partial(check_memory, precision="float32"),
    "peak memory of a prediction, bfloat16": partial(check_memory, precision="bfloat16"),
    "images per second": check_speed,
    "images per second beside transformers": check_beside_transformers,
    "torch.compile": check_compile,
}


class _TimeUpError(BaseException):
    """The time for all checks is up. It is not an ``Exception``, which checked code might catch."""


class GPUReport:
    """Collects the results of checks; ``write`` writes all results so far."""

    def __init__(self, folder: str | Path, bench: Bench, command: Sequence[str]) -> None:
        """Takes the folder of the files, which is created if necessary, and the command line."""
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.content: dict = {
            "command": list(command),
            "on_gpu": bench.on_gpu,
            "settings": bench.describe(),
            "machine": describe_machine(bench.settings),
            "versions": describe_versions(),
            "verdict": "",
            "checks": {},
        }

    @property
    def failed(self) -> bool:
        """Whether any check has failed."""
        return any(check["status"] == "failed" for check in self.content["checks"].values())

    def add(
        self, name: str, status: str, reason: str = "", figures: dict | None = None, seconds=0.0
    ) -> None:
        """Adds a check, and writes the files.

        Args:
            name: name of the check.
            status: "ok", "failed" or "skipped".
            reason: why the status isn't "ok".
            figures: measured figures.
            seconds: duration of the check.
        """
        self.content["checks"][name] = {
            "status": status,
            "reason": reason,
            "seconds": round(seconds, 3),
            "figures": figures or {},
        }
        logger.info("%-7s %s%s", status, name, f": {reason}" if reason else "")
        self.write()

    def write(self) -> None:
        """Writes ``gpu_check.json`` and ``gpu_check.md``."""
        self.content["verdict"] = verdict(self.content["checks"])
        write_json_atomically(self.content, self.folder / f"{NAME}.json")
        with written_whole(self.folder / f"{NAME}.md") as file:
            file.write(to_markdown(self.content).encode())


def run_checks(
    bench: Bench, report: GPUReport, seconds: float, checks: Mapping[str, Check] | None = None
) -> None:
    """Runs the checks one by one. A check that fails is reported, and the others still run.

    Args:
        bench: model and data of the checks.
        report: receives the result of each check.
        seconds: time for all checks; after it, the current check is stopped, the rest is skipped.
        checks: the checks to run; None: all.

    Raises:
        KeyboardInterrupt: the user interrupted; the report has the earlier checks.
    """
    end = time.monotonic() + seconds
    for name, check in (CHECKS if checks is None else checks).items():
        left = end - time.monotonic()
        if left <= 0:
            report.add(name, "skipped", NO_TIME)
            continue
        start = time.monotonic()
        outcome = _outcome_of(check, bench, left)
        report.add(name, *outcome, seconds=time.monotonic() - start)
        gc.collect()
        if bench.on_gpu:
            _give_back_memory()


def _outcome_of(check: Check, bench: Bench, seconds: float) -> tuple[str, str, dict]:
    """Runs a check, and returns its status, reason and figures."""
    try:
        with _stopped_after(seconds):
            return "ok", "", check(bench)
    except _TimeUpError:
        return "skipped", f"{NO_TIME}: stopped after {seconds:.0f} s", {}
    except CheckSkipped as skipped:
        return "skipped", str(skipped), {}
    except CheckFailed as failed:
        return "failed", str(failed), failed.figures
    except Exception as error:  # GPUs, drivers and compilers raise any error
        logger.debug("", exc_info=True)
        message = str(error).strip().partition("\n")[0][:LONGEST_REASON]
        return "failed", f"{type(error).__name__}: {message}", {}


@contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    """Stops the code inside after so many seconds, by an exception."""

    def stop(*_: object) -> None:
        raise _TimeUpError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _give_back_memory() -> None:
    try:
        torch.cuda.empty_cache()
    except RuntimeError as error:  # after a fault, a GPU refuses everything
        logger.debug("%s", error)


def verdict(checks: Mapping[str, Mapping]) -> str:
    """Sums up all checks in one sentence."""
    statuses = [check["status"] for check in checks.values()]
    counts = ", ".join(f"{statuses.count(s)} {s}" for s in ("ok", "failed", "skipped"))
    if "failed" in statuses:
        return f"FAILED: {counts}"
    unfinished = any(check["reason"].startswith(NO_TIME) for check in checks.values())
    return f"{'unfinished' if unfinished else 'passed'}: {counts}"


def to_markdown(content: Mapping) -> str:
    """Returns the report's content as a heading, a description and a table."""
    machine, settings = content["machine"], content["settings"]
    versions = ", ".join(f"{name} {v}" for name, v in content["versions"].items() if v)
    height, width = settings["size"]
    where = machine["gpu"] or f"{machine['processor']} (a CPU: no GPU was checked)"
    model = "a tiny model" if settings["quick"] else "DETR R50"
    rows = [
        [name, check["status"], check["seconds"], _shown(check["figures"]), check["reason"]]
        for name, check in content["checks"].items()
    ]
    table = tabulate(
        rows, ["check", "status", "s", "figures", "reason"], tablefmt="pipe", floatfmt=".1f"
    )
    return (
        f"# GPU check: {content['verdict']}\n\n{where}; {model}, image {height}×{width}; "
        f"{versions}.\n\n`{' '.join(content['command'])}`\n\n{table}\n"
    )


def _shown(figures: Mapping) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in figures.items()
        if value is not None
    )

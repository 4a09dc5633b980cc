"""Timing several things in turns, so that whatever else the machine does strikes all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch


def interleaved(
    runs: Mapping[str, Callable[[], object]], repeats: int, device: str, warmup: int = 1
) -> Iterator[tuple[str, float]]:
    """Runs everything once per round, and in the next round begins with the next of them.

    Args:
        runs: what is timed, by name.
        repeats: rounds that are timed.
        device: "cpu" or "cuda", where work is waited for before and after each run.
        warmup: rounds before, untimed.

    Yields:
        Name and seconds, after each timed run.
    """
    names = list(runs)
    for name in names * warmup:
        runs[name]()
    gc.collect()
    gc.freeze()  # what stays, models above all, needs no search before each run
    for round_ in range(repeats):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            yield name, seconds_of(runs[name], device)
    gc.unfreeze()


def seconds_of(run: Callable[[], object], device: str) -> float:
    """How long one run takes, its work on the device included; collects garbage beforehand."""
    gc.collect()
    wait_for(device)
    start = time.perf_counter()
    run()
    wait_for(device)
    return time.perf_counter() - start


def wait_for(device: str) -> None:
    """Waits until a GPU has done all that it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def median(times: Sequence[float]) -> float | None:
    """The median; None of nothing, as an interrupted benchmark leaves it."""
    return statistics.median(times) if times else None

"""Times several functions in turns, so that other work of the machine slows all of them alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch


def interleaved(
    runs: Mapping[str, Callable[[], object]], repeats: int, device: str, warmup: int = 1
) -> Iterator[tuple[str, float]]:
    """Runs each function once per round; each round begins with the next function.

    Args:
        runs: name → function that is timed.
        repeats: rounds that are timed.
        device: "cpu" or "cuda"; pending work on a GPU is finished before and after each run.
        warmup: earlier rounds, which are not timed.

    Yields:
        Name and seconds, after each timed run.
    """
    names = list(runs)
    for name in names * warmup:
        runs[name]()
    gc.collect()
    gc.freeze()  # models and other lasting objects needn't be searched before each run
    for round_ in range(repeats):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            yield name, seconds_of(runs[name], device)
    gc.unfreeze()


def seconds_of(run: Callable[[], object], device: str) -> float:
    """Times one run with its work on the device; collects garbage beforehand."""
    gc.collect()
    wait_for(device)
    start = time.perf_counter()
    run()
    wait_for(device)
    return time.perf_counter() - start


def wait_for(device: str) -> None:
    """Waits until a GPU has finished its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def median(times: Sequence[float]) -> float | None:
    """The median; None if there are no times, as after an interruption."""
    return statistics.median(times) if times else None

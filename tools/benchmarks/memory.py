"""Peak memory of one run, measured in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
MB = 2**20


@dataclass(frozen=True)
class Peak:
    """Memory in MiB.

    Attributes:
        total: the most that the process had during the run: Python, libraries, weights and all.
            On a GPU, the most that was allocated there.
        rise: how much of it was not there before the run.
    """

    total: float
    rise: float


def peak_memory(
    prepare: Callable[..., Callable[[], object]], *args: object, device: str, threads: int
) -> Peak | None:
    """Prepares something in a fresh process, runs it once, and sees what memory that took.

    Args:
        prepare: a function of a module, which returns what is to be run.
        *args: what it takes; has to survive pickling.
        device: "cpu" or "cuda".
        threads: of PyTorch in the new process.

    Returns:
        The peak; None where the process was killed, as it is when memory runs out.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as executor:
        try:
            return executor.submit(_probe, prepare, args, device, threads).result()
        except BrokenProcessPool:
            return None


def _probe(prepare: Callable, args: tuple, device: str, threads: int) -> Peak:
    torch.set_num_threads(threads)
    run = prepare(*args)
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
        return Peak(peak / MB, (peak - before) / MB)
    _give_back_what_is_free()
    _forget_peak()
    before = _status("VmRSS") or _largest_ever()
    run()
    peak = _status("VmHWM") or _largest_ever()
    return Peak(peak / MB, (peak - before) / MB)


def _status(field: str) -> int | None:
    """A figure of the kernel's on this process, in bytes; None where it doesn't tell.

    The peak of ``resource.getrusage`` won't do: a new process inherits that of its parent.
    """
    if STATUS.is_file():
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None


def _largest_ever() -> int:
    """Bytes; what there is outside Linux."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _forget_peak() -> None:
    """Lets the peak begin anew, so that what building took doesn't hide what the run takes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or not allowed: the peak is that of building, where it was higher
        pass


def _give_back_what_is_free() -> None:
    """Else the run would reuse what building has freed, and its rise would look smaller."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # not glibc
        pass

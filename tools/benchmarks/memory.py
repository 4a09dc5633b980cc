"""Measures the peak memory of one run, in a process of its own."""

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
        total: peak of the process during the run, with Python, libraries and weights. On a GPU, the
            peak of allocated memory.
        rise: how far the peak is above the memory before the run.
    """

    total: float
    rise: float


def peak_memory(
    prepare: Callable[..., Callable[[], object]], *args: object, device: str, threads: int
) -> Peak | None:
    """Prepares something in a fresh process, runs it once, and measures its memory.

    Args:
        prepare: a function of a module, which returns the function to run.
        *args: arguments of ``prepare``, which have to be picklable.
        device: "cpu" or "cuda".
        threads: number of PyTorch's threads in the new process.

    Returns:
        The peak; None if the process was killed, as happens when memory runs out.
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
    """Reads a figure of the kernel on this process, in bytes; None if there is none.

    The peak of ``resource.getrusage`` is no substitute: a process inherits that of its parent.
    """
    if STATUS.is_file():
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None


def _largest_ever() -> int:
    """Returns the peak of the process in bytes, for systems other than Linux."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _forget_peak() -> None:
    """Resets the peak, so that the memory of building doesn't hide that of the run."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or not allowed: then the peak may be that of building
        pass


def _give_back_what_is_free() -> None:
    """Frees what building left, since a run that reuses it would seem to need less memory."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # not glibc
        pass

"""How worker processes start: those of data loaders, of checks and of preparations."""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.context import BaseContext


def worker_context() -> BaseContext:
    """The context for processes that only read files and compute on the CPU.

    On Linux they are forked, which takes milliseconds, shares the memory of datasets and keeps the
    handlers of the log. Python's own choice from 3.14 on is "forkserver", with which each of them
    would import PyTorch and Detectron2 anew, for seconds. Elsewhere, and where somebody has chosen
    "spawn", it is Python's own.
    """
    if sys.platform == "linux" and multiprocessing.get_start_method(allow_none=True) != "spawn":
        return multiprocessing.get_context("fork")
    return multiprocessing.get_context()

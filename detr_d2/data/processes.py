"""Worker processes: how those of data loaders, checks and preparations start and share work."""

from __future__ import annotations

import multiprocessing
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items that wait for each process. With this limit, memory does not grow with the dataset.
ITEMS_PER_PROCESS = 8


def worker_context() -> BaseContext:
    """The context for processes that only read files and compute on the CPU.

    On Linux they are forked, which takes milliseconds, shares the memory of datasets and keeps the
    handlers of the log. From 3.14 on, Python's own choice is "forkserver": each process would
    import PyTorch and Detectron2 again, which takes seconds. On other systems, and if somebody has
    chosen "spawn", the context is Python's own.
    """
    if sys.platform == "linux" and multiprocessing.get_start_method(allow_none=True) != "spawn":
        return multiprocessing.get_context("fork")
    return multiprocessing.get_context()


def map_in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int
) -> Generator[Result]:
    """Gives the result of a function for each item, in the items' order.

    Args:
        function: can be pickled, as can the items and the results.
        items: any number of them.
        processes: how many compute at the same time; 0: only this one.

    Raises:
        ChildProcessError: a process died.
    """
    if processes == 0:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ProcessPoolExecutor(processes, worker_context()) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= ITEMS_PER_PROCESS * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "A worker process died, perhaps because memory ran out. Try fewer --workers."
            ) from error

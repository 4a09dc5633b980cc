"""Errors that stop a training (values that aren't finite, full disks, lost data) and messages."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import torch
from detectron2.utils import comm

from detr_d2.file_io import write_json_atomically

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class TrainingError(RuntimeError):
    """The training can't go on. The message says what happened, where, and what to do."""


class NotFiniteError(TrainingError, FloatingPointError):
    """A loss or a gradient is infinite or NaN."""


@dataclass
class StepStatus:
    """The status of one process in one step.

    Attributes:
        data_time: the seconds that it waited for data.
        losses: by name, summed over the finished parts of its batch.
        error: why it can't go on; "" if it can.
        file_names: the images of the current part of its batch.
    """

    data_time: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    error: str = ""
    file_names: Sequence[str] = ()

    def add(self, losses: Mapping[str, float]) -> None:
        """Adds the losses of a part. A loss that isn't finite becomes the error."""
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + value
        odd = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
        if odd:
            self.error = f"{', '.join(odd)}."


def stop(
    statuses: Sequence[StepStatus], reason: str, *, iteration: int, seed: int, output_dir: str
) -> NoReturn:
    """Ends training in all processes. The main process writes a file that helps repeat the step.

    Args:
        statuses: of all processes, in the order of their ranks; the same list in each process.
        reason: what isn't finite.
        iteration: of the stage, from 0.
        seed: ``SEED``.
        output_dir: the folder of the stage, which gets the file ``nan_<iteration>.json``.

    Raises:
        NotFiniteError: always.
    """
    path = Path(output_dir, f"nan_{iteration:07d}.json")
    stage = path.parent.name
    repeat = (
        "The same command with --resume repeats this iteration exactly, from the last checkpoint "
        "on. The images alone, augmented as they were: next(iter(detr_d2.data.loader."
        "build_train_loader(detr_d2.engine.training_stages.stage_config"
        f"(cfg, {stage!r}), {iteration})))."
    )
    content = {
        "iteration": iteration,
        "stage": stage,
        "seed": seed,
        "reason": reason,
        "processes": [
            {
                "rank": rank,
                "error": status.error,
                "losses": {name: _json_number(value) for name, value in status.losses.items()},
                "file_names": list(status.file_names),
            }
            for rank, status in enumerate(statuses)
        ],
        "to_repeat": repeat if seed >= 0 else "Not to be repeated: SEED was negative.",
    }
    if comm.is_main_process():
        write_json_atomically(content, path)
    comm.synchronize()  # The first process that ends would end the others before the file is there.
    guilty = [status for status in statuses if status.error] or statuses
    names = [str(name) for status in guilty for name in status.file_names]
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    raise NotFiniteError(
        f"Iteration {iteration} of stage {stage!r}: {reason} Images: {shown}. Losses, file names "
        f"and how to repeat it are in {path}. The weights were not changed by it. Look for damaged "
        "annotation, lower SOLVER.BASE_LR, or clip gradients (SOLVER.CLIP_GRADIENTS)."
    )


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)  # JSON has no NaN


@contextmanager
def explained(
    stage: str, iteration: Callable[[], int], last_checkpoint: Callable[[], str]
) -> Iterator[None]:
    """Turns errors that come from outside the code into one clear message.

    Args:
        stage: the stage's name.
        iteration: returns the current iteration.
        last_checkpoint: returns the last checkpoint, or "".

    Raises:
        TrainingError: replaces errors of files, of data and of the processes that load data. Other
            errors are passed on unchanged.
    """
    try:
        yield
    except TrainingError as error:
        raise type(error)(f"{error} {_way_on(last_checkpoint())}") from error
    except (OSError, EOFError, ValueError, RuntimeError) as error:
        said = _what_to_do(error)
        if said is None:
            raise
        raise TrainingError(
            f"Iteration {iteration()} of stage {stage!r}: {said} {_way_on(last_checkpoint())}"
        ) from error


def _what_to_do(error: Exception) -> str | None:
    """A sentence on what happened and what helps; None for an error that must be a bug."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    from_worker = lines[0].startswith("Caught ")  # The lines after it are the worker's traceback.
    said = (lines[-1] if from_worker else " ".join(lines)).rstrip(".") + "."
    if isinstance(error, torch.OutOfMemoryError):
        return f"{said} A higher SOLVER.ACCUMULATION_STEPS needs less memory for the same batch."
    # torch notices the death of a worker in one of these two ways.
    if isinstance(error, (ConnectionError, EOFError)) or said.startswith("DataLoader worker"):
        return (
            f"A process that loads data died ({said}) Most often the system stopped it, since "
            "memory ran out (a lower DATALOADER.NUM_WORKERS needs less) or shared memory, /dev/shm."
        )
    if isinstance(error, FileNotFoundError):
        return f"{said} If it was there before: is its disk still mounted?"
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return f"{said} Make room where OUTPUT_DIR is."
    if isinstance(error, (OSError, ValueError)) or from_worker:
        return said
    return None


def _way_on(last_checkpoint: str) -> str:
    if not last_checkpoint:
        return "No checkpoint had been saved yet."
    return f"The last checkpoint, {last_checkpoint}, is intact: --resume goes on from it."

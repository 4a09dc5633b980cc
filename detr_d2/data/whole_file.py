"""Files that are on the disk as a whole or not at all, whenever the process or the machine dies."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_TEMPORARY = re.compile(r".+\.\d+\.tmp")


@contextmanager
def written_whole(path: str | Path, mode: str = "wb") -> Iterator[IO]:
    """Opens a file that appears under its name once all of it is on the disk.

    Until then it has a temporary name in the same folder. What had its name before stays if
    anything goes wrong.

    Args:
        path: local; its folder exists.
        mode: "wb" or "w".

    Raises:
        OSError: it can't be written, in all the ways that torch has to say so.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else the name could outlive a power cut, and the content not
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        cause = _first_os_error(error)
        if cause is None:
            raise
        reason = cause.strerror or str(cause)
        raise OSError(cause.errno, f"can't be written: {reason}", str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: str | Path, name: str) -> None:
    """Makes sure that files can be made in a folder, which is made where it isn't there.

    Args:
        folder: local.
        name: the key that names it, for messages.

    Raises:
        OSError: they can't.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            f"{name}: nothing can be written to {os.path.abspath(folder)} ({reason}). Name another "
            "folder, or make room or ask for permission there."
        ) from error


def remove_unfinished(folder: str | Path) -> None:
    """Removes what killed processes left of files that they hadn't finished."""
    for path in Path(folder).glob("*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Makes a renaming last. Some file systems don't offer that, and need none."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _first_os_error(error: BaseException | None) -> OSError | None:
    """What the system said: torch puts an error of its own in front of it, or behind."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error

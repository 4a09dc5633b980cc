"""Reading and writing files: written as a whole or not at all, JSON, and quotes for messages.

Even if the process or the machine dies, a file is on the disk as a whole or not at all.
"""

from __future__ import annotations

import gc
import json
import os
import re
import reprlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 100
_TEMPORARY = re.compile(r".+\.\d+\.tmp")


@contextmanager
def written_whole(path: str | Path, mode: str = "wb") -> Iterator[IO]:
    """Opens a file that appears under its name once all of it is on the disk.

    Until then it has a temporary name in the same folder. If anything goes wrong, an older file of
    this name stays as it is.

    Args:
        path: local; its folder exists.
        mode: "wb" or "w".

    Raises:
        OSError: it can't be written, also where torch raises an error of its own for that.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the name without the content
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


@contextmanager
def folder_written_whole(path: str | Path) -> Iterator[Path]:
    """Makes a folder that appears under its name once the block has filled it.

    Until then it has a temporary name beside that one. It is removed if anything goes wrong.

    Args:
        path: local; an empty folder may be there already. Its parent is made if it is missing.

    Raises:
        OSError: something else is there, or the folder can't be made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def local_path(path: str | Path) -> str:
    """The path of a file on this machine. What has an address is fetched into a cache.

    Addresses, such as those with ``https://``, are those of Detectron2's ``PathManager``, which is
    imported only for them.
    """
    path = os.fspath(path)
    if "://" not in path:
        return path
    from detectron2.utils.file_io import PathManager

    return PathManager.get_local_path(path)


def read_json(path: str | Path) -> Any:
    """The content of a JSON file in UTF-8, with or without a byte-order mark.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON; the message names the file.
    """
    try:
        with without_garbage_collection():
            return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # neither JSON nor UTF-8, or nested too deeply
        raise ValueError(f"{path}: cannot be read as JSON ({error}).") from error


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Keeps Python from searching objects for cycles while millions of them, without any, are made.

    The search takes most of the time in which a large JSON is parsed.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def write_json_atomically(content: Any, path: str | Path) -> None:
    """Writes JSON so that readers see the whole file or none of it.

    Raises:
        OSError: it can't be written; an older file of this name stays as it is.
    """
    with written_whole(path, "w") as file:
        json.dump(content, file)


def check_writable(folder: str | Path, name: str) -> None:
    """Makes sure that files can be written to a folder. A missing folder is made.

    Args:
        folder: local.
        name: the key that names it, for messages.

    Raises:
        OSError: no file can be written.
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
    """Removes the unfinished files that killed processes have left."""
    for path in Path(folder).glob("*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def quoted(said: object) -> str:
    """A value from a file as messages show it: short, and without control characters."""
    return _short.repr(said)


def _sync_folder(folder: Path) -> None:
    """Writes a renaming to the disk. File systems that don't offer this don't need it."""
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
    """The system's own error, which may be the context of one that torch raises."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error

"""Lists the functions and classes in pickles, and reads pickles of arrays without calling them."""

from __future__ import annotations

import codecs
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any, BinaryIO

from detr_d2.checkpoint.checkpoint_errors import CheckpointError, brief

# Names that torch permits by default, and argparse.Namespace.
PERMITTED_GLOBALS = re.compile(
    r"torch\.\w+|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_\w+"
    r"|torch\.storage\.\w+Storage|torch\.nn\.parameter\.Parameter"
    r"|torch\.serialization\._get_layout|collections\.(OrderedDict|Counter)|_codecs\.encode"
    r"|(builtins|__builtin__)\.(set|bytearray|complex)|argparse\.Namespace"
)
# Among them are the version of the format, and the content.
_PICKLES_IN_OLD_FILES = 5


def globals_of(path: Path) -> list[str]:
    """Lists the functions and classes that a file of PyTorch names, as far as it can be read.

    A zip holds one relevant pickle; older files are a sequence of pickles.
    """
    names = []
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    if member.endswith(".pkl"):
                        with archive.open(member) as file:
                            names += _names_in(file)
        else:
            with open(path, "rb") as file:
                for _ in range(_PICKLES_IN_OLD_FILES):
                    names += _names_in(file)
    except Exception:  # the zip is damaged
        pass
    return names


def _names_in(file: IO[bytes]) -> list[str]:
    """Lists the functions and classes that the next pickle of a file names, from its opcodes."""
    names: list[str] = []
    memo: dict[Any, str | None] = {}
    texts: list[str | None] = [None, None]  # the last two are the halves of a name
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name in ("GLOBAL", "INST"):
                names.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.append(f"{texts[-2]}.{texts[-1]}")
            elif opcode.name == "MEMOIZE" or opcode.name.endswith("PUT"):
                memo[len(memo) if argument is None else argument] = texts[-1]
            elif opcode.name.endswith("GET"):
                texts.append(memo.get(argument))
            else:
                texts.append(argument if isinstance(argument, str) else None)
    except Exception:  # damaged bytes may raise any error
        pass
    return names


class _Dtype:
    """Stands for a dtype of numbers; others are refused.

    NumPy would accept a state that makes pointers of an array's bytes.
    """

    def __new__(cls, kind: str, *copy: object) -> _Dtype:
        if not re.fullmatch(r"[biufc]\d{1,2}", kind):
            raise ValueError("arrays of something else than numbers")
        return super().__new__(cls)

    def __setstate__(self, state: tuple) -> None:
        if state[2:] != (None, None, None, -1, -1, 0):
            raise ValueError("arrays of something else than numbers")


class Array:
    """Stands for an array or a number of NumPy, whose dtype has to be a ``_Dtype``."""

    def __new__(cls, *parts: object) -> Array:
        is_empty = parts[:2] == (_NDARRAY, (0,))  # its state gives its dtype
        if not is_empty and not any(isinstance(part, _Dtype) for part in parts[:2]):
            raise ValueError("something else than arrays")
        return super().__new__(cls)

    def __setstate__(self, state: tuple) -> None:
        if not isinstance(state[2], _Dtype):
            raise ValueError("something else than arrays")


_NDARRAY = object()
# The names that pickles of NumPy arrays and plain values need, in all versions of both, and what
# stands for each of them here.
ARRAY_GLOBALS = {
    **{
        f"numpy.{core}.{function}": Array
        for core in ("core", "_core")
        for function in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
    },
    "numpy.ndarray": _NDARRAY,
    "numpy.dtype": _Dtype,
    "_codecs.encode": codecs.encode,
    "collections.OrderedDict": OrderedDict,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles plain values, and stand-ins for NumPy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        wanted = f"{module}.{name}"
        if wanted not in ARRAY_GLOBALS:
            raise CheckpointError(
                f"wants {brief(wanted)} to be unpickled. That could run any code, and is refused: "
                "a .pkl may hold arrays and plain values."
            )
        return ARRAY_GLOBALS[wanted]


def read_arrays(file: BinaryIO) -> Any:
    """Reads a pickle, with ``Array`` in place of arrays.

    Raises:
        CheckpointError: the pickle names something else.
        Exception: of any kind, if the pickle is damaged.
    """
    for opcode, argument, position in pickletools.genops(file):
        # The unpickler allocates this many places, and damaged bytes may ask for billions.
        if opcode.name.endswith("PUT") and int(argument or 0) > int(position or 0):
            raise ValueError("numbers that make no sense")
    file.seek(0)
    return _ArrayUnpickler(file, encoding="latin1").load()

"""The fields of a panoptic JSON: which values each may have, and how they are read.

Everything that reads such a file uses this module, so that a field means the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from detr_d2.data.panoptic_png import MAX_SEGMENT_ID
from detr_d2.file_io import quoted

# Larger numbers don't fit the arrays of ids. No dataset needs them.
_MAX_NUMBER = 2**63 - 1
# Above this, floats can't represent every whole number.
_MAX_FLOAT = 2**53


class Field(NamedTuple):
    """A field of an entry: how it is read, and what it must be, in words for messages.

    ``read`` returns None for a wrong value. A missing field has the value ``default``; without a
    default it must be there.
    """

    read: Callable[[Any], Any]
    wanted: str
    default: Any = None


def whole_number(value: object) -> int | None:
    """The whole number that a value means, also as a float or as digits in a text; else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if abs(value) <= _MAX_NUMBER else None
    if isinstance(value, float):
        return int(value) if abs(value) <= _MAX_FLOAT and value.is_integer() else None
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 18:
        return int(value)
    return None


def flag(value: object) -> bool | None:
    """The bool that a value means: false, true, or 0 or 1, also as a text; else None."""
    if isinstance(value, bool):
        return value
    number = whole_number(value)
    return bool(number) if number in (0, 1) else None


def is_crowd(segment: dict) -> bool:
    """Whether a segment is a crowd. Without ``iscrowd``, it is none.

    Raises:
        ValueError: ``iscrowd`` is neither 0, 1, false nor true.
    """
    crowd = flag(segment.get("iscrowd", False))
    if crowd is None:
        raise ValueError(
            f"segment {quoted(segment.get('id'))} has a wrong 'iscrowd': "
            f"{quoted(segment['iscrowd'])}, but it must be {_FLAG}."
        )
    return crowd


def image_id(value: object) -> int | str | None:
    """The id of one image: a whole number, or a text that isn't just digits; else None."""
    number = whole_number(value)
    if isinstance(value, str) and str(number) != value:  # "007" may be another image than "7"
        return value
    return number


def image_id_reader(ids: Iterable[object]) -> Callable[[object], int | str | None]:
    """Chooses how the image ids of a file are read: as numbers if all are numbers, else as texts.

    If both types were mixed, ids would not be found again: NumPy makes texts of all of them. "007"
    is a text, since "7" may be another image.

    Args:
        ids: all ids of the file, unchecked.
    """
    texts = (given for given in ids if isinstance(given, str))
    if all(whole_number(given) is not None and str(int(given)) == given for given in texts):
        return whole_number

    def text(given: object) -> str | None:
        if isinstance(given, str):
            return given or None
        number = whole_number(given)
        return None if number is None else str(number)

    return text


def color(value: object) -> list[int] | None:
    """Red, green and blue in 0 … 255, given as numbers or as "#2080c0"; None for anything else."""
    if isinstance(value, str) and len(value) == 7 and value[0] == "#":
        try:
            return list(bytes.fromhex(value[1:]))
        except ValueError:
            return None
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        return None
    numbers = [n for n in map(whole_number, value) if n is not None and 0 <= n <= 255]
    return numbers if len(numbers) == 3 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _name(value: object) -> str | None:
    return _text(value) or None


def _size(value: object) -> int | None:
    number = whole_number(value)
    return number if number is not None and number > 0 else None


def _segment_id(value: object) -> int | None:
    number = whole_number(value)
    return number if number is not None and 0 < number <= MAX_SEGMENT_ID else None


def _list(value: object) -> list | None:
    return value if isinstance(value, list) else None


_FLAG = "0, 1, false or true"
_ID = Field(whole_number, "a whole number")
_FILE_NAME = Field(_text, "a text")
SIZE_FIELDS = {field: Field(_size, "a whole number from 1 on") for field in ("height", "width")}
CATEGORY_FIELDS = {"id": _ID, "name": Field(_name, "a text")}
SEGMENT_FIELDS = {
    "id": Field(
        _segment_id, f"a whole number in 1 … {MAX_SEGMENT_ID}, as colours hold; 0 stands for void"
    ),
    "category_id": _ID,
    "iscrowd": Field(flag, _FLAG, default=False),
}


def isthing_field(default: bool | None) -> dict[str, Field]:
    """The field ``isthing``, and its value where it is missing; None: it must be there."""
    return {"isthing": Field(flag, "1 or true for things, 0 or false for stuff", default)}


def image_fields(read_id: Callable[[object], int | str | None]) -> dict[str, Field]:
    """The fields of an image without its size; ``read_id`` is the file's ``image_id_reader``."""
    return {"id": _image_id(read_id), "file_name": _FILE_NAME}


def annotation_fields(read_id: Callable[[object], int | str | None]) -> dict[str, Field]:
    """The fields of an annotation; ``read_id`` is the file's ``image_id_reader``."""
    return {
        "image_id": _image_id(read_id),
        "file_name": _FILE_NAME,
        "segments_info": Field(_list, "a list"),
    }


def _image_id(read_id: Callable[[object], int | str | None]) -> Field:
    return Field(read_id, "a whole number or a text")


def read_fields(entry: object, fields: dict[str, Field], where: str) -> dict:
    """Reads an entry.

    Args:
        entry: as the file has it; it isn't changed.
        fields: the fields to read, by name.
        where: the file, the list and the place in it, for messages.

    Returns:
        A copy of the entry, with the values that were read.

    Raises:
        ValueError: it is no dict, or a field is missing or wrong; the message names the field.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is no dict: {quoted(entry)}")
    result = dict(entry)
    for key, field in fields.items():
        value = field.read(entry[key]) if key in entry else field.default
        if value is None:
            problem = f"a wrong {key!r}: {quoted(entry[key])}" if key in entry else f"no {key!r}"
            shown = {name: said for name, said in entry.items() if name != "segments_info"}
            raise ValueError(f"{where} has {problem}. It must be {field.wanted}. {quoted(shown)}")
        result[key] = value
    return result

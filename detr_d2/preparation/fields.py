"""Numbers and flags of JSONs, in all forms in which tools write them."""

from __future__ import annotations

from typing import Any

# Longer texts of digits are names, and larger floats aren't exact.
_MAX_DIGITS, _MAX_FLOAT = 18, 2**53


def as_whole(value: Any) -> int | None:
    """A whole number, written as 3, 3.0 or "3".

    Returns:
        None where it is something else. So are true, and "03", which may differ from "3".
    """
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer() and abs(value) <= _MAX_FLOAT:
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        if len(value) <= _MAX_DIGITS and str(int(value)) == value:
            return int(value)
    return None


def as_id(value: Any) -> int | str | None:
    """The id of an image: a whole number, or another text; None where it is neither."""
    whole = as_whole(value)
    return value if whole is None and isinstance(value, str) else whole


def as_flag(value: Any) -> bool | None:
    """A flag, written as 0, 1, 0.0, 1.0, "0", "1", true or false; None: it is something else."""
    number = int(value) if isinstance(value, bool) else as_whole(value)
    return bool(number) if number in (0, 1) else None

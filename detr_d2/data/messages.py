"""What files say, in messages for people."""

from __future__ import annotations

import reprlib

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 100


def quoted(said: object) -> str:
    """What a file says, for messages: never long, and nothing that a terminal would act on."""
    return _short.repr(said)

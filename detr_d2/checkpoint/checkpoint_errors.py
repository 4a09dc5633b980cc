"""Errors of checkpoints."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint can't be read, or doesn't fit the model. Users see the message."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """There is no file or folder at the path of a checkpoint."""


def brief(said: object, most: int = 100) -> str:
    """Shortens a text from a file for messages, and escapes what could control a terminal."""
    text = str(said)
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)

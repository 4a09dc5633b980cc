"""What goes wrong with a checkpoint."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint that can't be read, or doesn't fit the model. The message is for people."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """There is nothing where a checkpoint was said to be."""


def brief(said: object, most: int = 100) -> str:
    """What a file says, for messages: never long, and nothing that a terminal would act on."""
    text = str(said)
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)

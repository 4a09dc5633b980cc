"""What goes wrong with a checkpoint."""


class CheckpointError(ValueError):
    """A checkpoint that can't be read, or doesn't fit the model. The message is for people."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """There is nothing where a checkpoint was said to be."""

"""Loads and saves the model of a run."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlparse

from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from detr_d2.checkpoint import (
    DESCRIPTION,
    CheckpointError,
    check_pickle,
    describe,
    fetch,
    read_checkpoint,
)
from detr_d2.checkpoint.files import read_file

# Ends of paths whose files Detectron2 alone can read: they hold backbones, whose names it matches
# by heuristics.
DETECTRON2_FORMATS = (".pkl", ".pyth", "?matching_heuristics=True")


class StrictCheckpointer(DetectionCheckpointer):
    """Loads any kind of checkpoint, completely or not at all, where Detectron2 would warn.

    Files of Detectron2's own model zoo (``.pkl``) load as Detectron2 loads them, but nothing is
    unpickled beyond arrays and plain values.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        to_train: bool = False,
        **checkpointables: object,
    ) -> None:
        """Takes what ``DetectionCheckpointer`` takes.

        Args:
            model: a DETR, perhaps wrapped for distributed training.
            save_dir: where checkpoints are saved.
            to_train: whether the model is trained from here on, so that files may lack the mask
                head, or hold a backbone alone.
            **checkpointables: what is saved and loaded beside the model.
        """
        super().__init__(model, save_dir, **checkpointables)
        self.to_train = to_train

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict:
        """Loads a checkpoint of any kind.

        Args:
            path: see ``fetch``; nothing is loaded where it is empty.
            checkpointables: names of those to load; None: all that the file has.

        Returns:
            What else the file holds.

        Raises:
            CheckpointNotFoundError: there is nothing at the path.
            CheckpointError: it can't be read, or doesn't fit the model.
        """
        if not path or path.endswith(DETECTRON2_FORMATS):
            if path:
                self._check_backbone(path)
            try:
                return super().load(path, checkpointables)
            except AssertionError as error:  # what Detectron2 says of files without a model
                raise CheckpointError(f"{path}: {error}") from error
        checkpoint = read_checkpoint(path)
        self.model.load_checkpoint(checkpoint, to_train=self.to_train)
        rest = {key: value for key, value in checkpoint.content.items() if key != "model"}
        for key in self.checkpointables if checkpointables is None else checkpointables:
            if key in rest:
                self.checkpointables[key].load_state_dict(rest.pop(key))
        return rest

    def _check_backbone(self, path: str) -> None:
        """Makes sure that a backbone is wanted, and that Detectron2 may read it: it trusts files.

        Raises:
            CheckpointNotFoundError, CheckpointError: it isn't, or may not.
        """
        if not self.to_train or self.model.loading_rules.frozen:
            raise CheckpointError(f"{path} is a backbone to train from, and no trained detector.")
        path = urlparse(path)._replace(query="").geturl()  # the file that Detectron2 will read
        if path.endswith(".pkl"):
            check_pickle(fetch(path))
        else:
            read_file(fetch(path))

    def save(self, name: str, **kwargs: Any) -> None:
        """Saves the model, and what its classes and settings are."""
        rules = self.model.loading_rules
        super().save(name, **{DESCRIPTION: describe(rules.classes, rules.settings)}, **kwargs)

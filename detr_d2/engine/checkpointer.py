"""Loads and saves the model of a run."""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from torch import nn

from detr_d2.checkpoint import (
    DESCRIPTION,
    CheckpointError,
    check_pickle,
    describe,
    fetch,
    load_checkpoint,
    read_checkpoint,
)
from detr_d2.checkpoint.model_zoo import WANTED, whole_model_in
from detr_d2.checkpoint.sources import DETECTRON2_FORMATS
from detr_d2.checkpoint.weight_files import read_file
from detr_d2.file_io import written_whole

logger = logging.getLogger(__name__)


class StrictCheckpointer(DetectionCheckpointer):
    """Loads any kind of checkpoint completely, and raises errors where Detectron2 would warn.

    Files of Detectron2's own model zoo (``.pkl``) load as Detectron2 loads them, but only arrays
    and plain values are unpickled.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        to_train: bool = False,
        **checkpointables: object,
    ) -> None:
        """Takes the arguments of ``DetectionCheckpointer``.

        Args:
            model: a DETR with ``loading_rules``, see ``take_any_detr``. It may be wrapped for
                distributed training.
            save_dir: the folder of checkpoints.
            to_train: whether the model is trained after loading, so that files may lack the mask
                head, or hold only a backbone.
            **checkpointables: objects that are saved and loaded with the model.
        """
        super().__init__(model, save_dir, **checkpointables)
        self.to_train = to_train

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict:
        """Loads a checkpoint of any kind.

        Args:
            path: see ``fetch``; if it is empty, nothing is loaded.
            checkpointables: names of those to load; None: all that the file has.

        Returns:
            The rest of the file's content.

        Raises:
            CheckpointNotFoundError: there is nothing at the path.
            CheckpointError: the file can't be read, or doesn't fit the model.
        """
        if not path or path.endswith(DETECTRON2_FORMATS):
            if path:
                self._check_backbone(path)
            try:
                return super().load(path, checkpointables)
            except AssertionError as error:  # Detectron2 raises it for files without a model
                raise CheckpointError(f"{path}: {error}") from error
        checkpoint = read_checkpoint(path, self.model.loading_rules.pretrained)
        load_checkpoint(self.model, checkpoint, to_train=self.to_train)
        rest = {key: value for key, value in checkpoint.content.items() if key != "model"}
        for key in self.checkpointables if checkpointables is None else checkpointables:
            if key in rest:
                self.checkpointables[key].load_state_dict(rest.pop(key))
        return rest

    def _check_backbone(self, path: str) -> None:
        """Checks that a backbone is enough, and that its file, which Detectron2 trusts, is safe.

        Raises:
            CheckpointNotFoundError, CheckpointError: a backbone isn't enough, or the file isn't
                safe or doesn't exist.
        """
        if not self.to_train or self.model.loading_rules.frozen:
            raise CheckpointError(
                whole_model_in(path)
                or f"{path} is a backbone to train from, and not a trained detector. {WANTED}"
            )
        path = urlparse(path)._replace(query="").geturl()  # the file that Detectron2 will read
        if path.endswith(".pkl"):
            check_pickle(fetch(path))
        else:
            read_file(fetch(path))

    def save(self, name: str, **kwargs: Any) -> None:
        """Saves the model with its classes and settings, completely or not at all.

        Raises:
            OSError: the file can't be written; earlier files are unchanged.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        rules = self.model.loading_rules
        content = {
            "model": self.model.state_dict(),
            **{key: value.state_dict() for key, value in self.checkpointables.items()},
            DESCRIPTION: describe(rules.classes, rules.settings),
            **kwargs,
        }
        path = Path(self.save_dir, f"{name}.pth")
        logger.info("Saving checkpoint to %s", path)
        with written_whole(path) as file:
            torch.save(content, file)
        self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Records the name of the last checkpoint. A failure leaves the old record."""
        with written_whole(Path(self.save_dir, "last_checkpoint"), "w") as file:
            file.write(last_filename_basename)

    def find_to_resume(self) -> str:
        """Finds the newest complete checkpoint, the same in all processes; "" if there is none.

        It is the checkpoint that ``last_checkpoint`` names or, if that is damaged, an earlier one.

        Raises:
            CheckpointError: there are checkpoints, but none is complete.
        """
        found: str | None = ""
        if comm.is_main_process() and self.has_checkpoint():
            found = next((str(path) for path in self._candidates() if _is_whole(path)), None)
        found = comm.all_gather(found)[0]
        if found is None:
            raise CheckpointError(
                f"No checkpoint in {self.save_dir} is complete. Start again without --resume: the "
                "existing files will be kept."
            )
        return found

    def _candidates(self) -> Iterator[Path]:
        """Yields the last checkpoint, then the earlier ones, newest first."""
        last = Path(self.get_checkpoint_file())
        yield last
        number = _number(last)
        paths = last.parent.glob("*.pth")
        saved = [(its_number, path) for path in paths if (its_number := _number(path)) is not None]
        for its_number, path in sorted(saved, reverse=True):
            if number is None or its_number < number:
                yield path


def _number(path: Path) -> int | None:
    """The iteration in the name of a checkpoint; None for ``model_final.pth`` and other files."""
    match = re.fullmatch(r"model_(\d+)\.pth", path.name)
    return int(match[1]) if match else None


def _is_whole(path: Path) -> bool:
    """Whether a checkpoint is complete, by its checksums, which torch doesn't check."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        damaged = str(error)
    if damaged is not None:
        logger.warning("%s is damaged or cut off (%s): it is left out.", path, damaged)
    return damaged is None

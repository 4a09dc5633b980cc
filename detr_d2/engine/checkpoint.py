"""Checkpoints that load completely or not at all."""

from __future__ import annotations

from collections.abc import Iterable

from detectron2.checkpoint import DetectionCheckpointer
from fvcore.common.checkpoint import _IncompatibleKeys
from torch import nn

MASK_HEAD_PREFIX = "mask_head."


class StrictCheckpointer(DetectionCheckpointer):
    """Refuses a file that doesn't fit the model, where Detectron2 would warn and go on.

    A detector's file may lack the whole mask head, which then keeps its initial values, if
    ``mask_head_may_be_missing``; and a bare detector ignores a file's mask head. Files of
    Detectron2's own model zoo (``.pkl``) hold backbones: they load as Detectron2 loads them.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        mask_head_may_be_missing: bool = False,
        **checkpointables: object,
    ) -> None:
        super().__init__(model, save_dir, **checkpointables)
        self.mask_head_may_be_missing = mask_head_may_be_missing
        self._path = ""

    def load(self, path: str, *args: object, **kwargs: object) -> dict:
        """Loads as ``DetectionCheckpointer`` does.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: tensors are missing, left over, or of another shape.
        """
        if path and "://" not in path and not self.path_manager.exists(path):
            raise FileNotFoundError(f"There is no checkpoint {path}.")
        self._path = path
        return super().load(path, *args, **kwargs)

    def _log_incompatible_keys(self, incompatible: _IncompatibleKeys) -> None:
        if self._path.endswith(".pkl"):
            return super()._log_incompatible_keys(incompatible)
        missing, unexpected = incompatible.missing_keys, incompatible.unexpected_keys
        mismatched = {key for key, _, _ in incompatible.incorrect_shapes}
        missing = [key for key in missing if key not in mismatched]
        mask_head = [key for key in self.model.state_dict() if _in_mask_head(key)]
        if missing and self.mask_head_may_be_missing and set(missing) == set(mask_head):
            self.logger.info("No mask head in %s: it starts untrained.", self._path)
            missing = []
        unexpected = [key for key in unexpected if not _in_mask_head(key)]
        problems = [
            f"{key}: {in_file} in the file, {in_model} in the model"
            for key, in_file, in_model in (
                (key, tuple(a), tuple(b)) for key, a, b in incompatible.incorrect_shapes
            )
        ]
        if missing:
            problems.append(f"missing in the file: {_shorten(missing)}")
        if unexpected:
            problems.append(f"in the file, but not in the model: {_shorten(unexpected)}")
        if problems:
            raise ValueError(
                f"{self._path} doesn't fit the model that the config describes:\n  "
                + "\n  ".join(problems)
            )


def _in_mask_head(key: str) -> bool:
    return key.startswith(MASK_HEAD_PREFIX)


def _shorten(keys: Iterable[str]) -> str:
    keys = list(keys)
    return ", ".join(keys[:6]) + (f" and {len(keys) - 6} more" if len(keys) > 6 else "")

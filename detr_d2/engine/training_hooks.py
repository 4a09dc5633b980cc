"""What happens around each step of a training."""

from __future__ import annotations

import torch
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm

from detr_d2.data.loader import mix_seed
from detr_d2.engine.mask_metrics import MaskRecorder


class RepeatableRandomness(HookBase):
    """Seeds each iteration by its number, so that a resumed run draws what an unbroken one does."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_step(self) -> None:
        step = self.trainer.iter * comm.get_world_size() + comm.get_rank()
        torch.manual_seed(mix_seed(self.seed, step))


class MaskMetrics(HookBase):
    """In the steps that are logged, records what masks and attention look like.

    To be registered before hooks that evaluate or write. A model without masks has nothing to show.
    """

    def __init__(self, period: int) -> None:
        """Takes the number of iterations between two lines of the log."""
        self.period = period
        self.recorder: MaskRecorder | None = None

    def before_step(self) -> None:
        model = getattr(self.trainer.model, "module", self.trainer.model)
        number = self.trainer.iter + 1
        is_logged = number % self.period == 0 or number == self.trainer.max_iter
        if is_logged and model.mask_head is not None:
            self.recorder = MaskRecorder(model)

    def after_step(self) -> None:
        if self.recorder is not None:
            self.recorder.put(self.trainer.storage)
        self._close()

    def after_train(self) -> None:
        self._close()  # after a step that failed

    def _close(self) -> None:
        if self.recorder is not None:
            self.recorder.close()
        self.recorder = None


class EvalHook(hooks.EvalHook):
    """Detectron2's, but for trainings that fail in their very last step: these end at once."""

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()

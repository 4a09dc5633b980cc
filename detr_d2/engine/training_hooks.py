"""Hooks that run before or after the steps of a training."""

from __future__ import annotations

import torch
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm

from detr_d2.data.loader import mix_seed
from detr_d2.engine.mask_metrics import MaskRecorder


class RepeatableRandomness(HookBase):
    """Seeds each iteration by its number: a resumed run draws the same as an unbroken one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_step(self) -> None:
        step = self.trainer.iter * comm.get_world_size() + comm.get_rank()
        torch.manual_seed(mix_seed(self.seed, step))


class MaskMetrics(HookBase):
    """Records metrics of masks and attention in the steps that are logged.

    Register it before hooks that evaluate or write. For a model without masks it does nothing.
    """

    def __init__(self, period: int) -> None:
        """
        Args:
            period: the number of iterations between two lines of the log.
        """
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
        self._close()  # A failed step has not called after_step.

    def _close(self) -> None:
        if self.recorder is not None:
            self.recorder.close()
        self.recorder = None


class EvalHook(hooks.EvalHook):
    """Detectron2's hook, without an evaluation after a training whose last step failed."""

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()

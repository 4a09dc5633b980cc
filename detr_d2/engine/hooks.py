"""What happens around each step of a training."""

from __future__ import annotations

import torch
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm

from detr_d2.data.loader import mix_seed


class RepeatableRandomness(HookBase):
    """Seeds each iteration by its number, so that a resumed run draws what an unbroken one does."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_step(self) -> None:
        step = self.trainer.iter * comm.get_world_size() + comm.get_rank()
        torch.manual_seed(mix_seed(self.seed, step))


class EvalHook(hooks.EvalHook):
    """Detectron2's, but for trainings that fail in their very last step: these end at once."""

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()

"""The training loop, with gradient accumulation, mixed precision and checks of the losses."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import nn

from detr_d2.engine.training_faults import StepStatus, stop

logger = logging.getLogger(__name__)


class Trainer(SimpleTrainer):
    """Detectron2's trainer with another step.

    A batch may go through the model in parts. Their gradients add up to those of the whole batch,
    because the losses of all parts in all processes are divided by the divisors of the whole batch.
    The optimizer, its clipping and the schedule see one step. A loss that isn't finite stops all
    processes before the weights change.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        accumulation_steps: int,
        mixed_precision: bool,
        seed: int,
        output_dir: str,
    ) -> None:
        """The trainer has no data yet; see ``reset_data_loader``.

        Args:
            model: a DETR, perhaps wrapped for distributed training.
            optimizer: of the model's parameters.
            accumulation_steps: the number of parts of each process's share of a batch.
            mixed_precision: whether to compute in float16 where that is safe. Steps whose gradients
                overflow are skipped and counted.
            seed: ``SEED``, for the file about losses that aren't finite.
            output_dir: the folder of that file.
        """
        super().__init__(model, [], optimizer)
        self.accumulation_steps = accumulation_steps
        self.device_type = next(model.parameters()).device.type
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=mixed_precision)
        self.skipped_steps = 0
        self.seed = seed
        self.output_dir = output_dir

    def run_step(self) -> None:
        """Takes a batch and changes the weights once.

        Raises:
            NotFiniteError: a loss in any process, or the norm of the gradients, isn't finite. All
                processes raise it.
        """
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        status = StepStatus(data_time=time.perf_counter() - start)
        self.optimizer.zero_grad()
        model: Any = getattr(self.model, "module", self.model)
        divisors = model.divisors(batch)
        parts = self.split(batch)
        for part in parts:
            is_last = part is parts[-1]
            with nullcontext() if is_last else self._gradients_stay_here():
                total = self._losses_of(part, divisors, status)
                # All processes meet here before the last backward pass, whose all-reduce would
                # hang if one of them had stopped. A process with an error comes here at once.
                if is_last or status.error:
                    statuses = comm.all_gather(status)
                    self._stop_if(next((s.error for s in statuses if s.error), ""), statuses)
                assert total is not None  # else all processes have stopped
                self.grad_scaler.scale(total).backward()
        self.after_backward()
        self._put_metrics(statuses)
        self._change_weights(statuses)

    def split(self, batch: Sequence[dict]) -> list[Sequence[dict]]:
        """Splits this process's share of a batch into parts of the same size."""
        size = len(batch) // self.accumulation_steps
        return [batch[i : i + size] for i in range(0, len(batch), size)]

    def _gradients_stay_here(self) -> AbstractContextManager:
        """A context in which processes don't exchange gradients; the last part is outside it."""
        return self.model.no_sync() if hasattr(self.model, "no_sync") else nullcontext()

    def _losses_of(
        self, part: Sequence[dict], divisors: object, status: StepStatus
    ) -> torch.Tensor | None:
        """The sum of a part's losses, which are also added to the status; None after an error."""
        status.file_names = [x.get("file_name", "?") for x in part]
        try:
            with torch.autocast(
                self.device_type, torch.float16, enabled=self.grad_scaler.is_enabled()
            ):
                losses = self.model(part, divisors)
        except FloatingPointError as error:  # raised by the matcher
            status.error = str(error)
            return None
        values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()
        status.add(dict(zip(losses, values, strict=True)))
        return sum(losses.values())

    def _change_weights(self, statuses: Sequence[StepStatus]) -> None:
        scaler = self.grad_scaler
        scale = scaler.get_scale()
        try:
            scaler.step(self.optimizer)
        except FloatingPointError as error:  # raised by clipping, before any weight changes
            self._stop_if(str(error), statuses)
        scaler.update()
        if not scaler.is_enabled():
            return
        if scaler.get_scale() < scale:
            self.skipped_steps += 1
            logger.info(
                "Iteration %d: gradients overflowed float16, so that the step is skipped, as is "
                "normal now and then (%d so far). Losses are scaled by %g from now on.",
                *(self.iter, self.skipped_steps, scaler.get_scale()),
            )
        self.storage.put_scalar("amp/skipped_steps", self.skipped_steps, smoothing_hint=False)
        self.storage.put_scalar("amp/loss_scale", scaler.get_scale(), smoothing_hint=False)

    def _put_metrics(self, statuses: Sequence[StepStatus]) -> None:
        """Writes the losses of the whole batch: the mean over processes of their sums."""
        if not comm.is_main_process():
            return
        losses = {name: np.mean([s.losses[name] for s in statuses]) for name in statuses[0].losses}
        self.storage.put_scalar("data_time", max(status.data_time for status in statuses))
        self.storage.put_scalar("total_loss", sum(losses.values()))
        self.storage.put_scalars(**losses)

    def _stop_if(self, reason: str, statuses: Sequence[StepStatus]) -> None:
        if reason:
            stop(
                statuses,
                reason,
                iteration=self.iter,
                seed=self.seed,
                output_dir=self.output_dir,
            )

    def state_dict(self) -> dict:
        state = super().state_dict()
        if self.grad_scaler.is_enabled():
            state["grad_scaler"] = self.grad_scaler.state_dict()
            state["skipped_steps"] = self.skipped_steps
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        if self.grad_scaler.is_enabled() and state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
            self.skipped_steps = state_dict.get("skipped_steps", 0)

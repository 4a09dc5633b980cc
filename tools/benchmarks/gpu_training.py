"""Checks on a GPU: training steps, losses compared with a CPU's, and distributed training.

Axes: none; tensors are compared as wholes.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import torch
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.gpu_setup import (
    Bench,
    CheckFailed,
    exact_float32,
    forget_peak,
    peak_mib,
)
from benchmarks.timing import median, seconds_of
from detr_d2.config import set_key
from detr_d2.engine.solver import build_optimizer
from detr_d2.engine.training_loop import Trainer
from detr_d2.engine.training_stages import stage_config

# Number of steps in which AMP has to find a scale that doesn't overflow.
SCALING_STEPS = 20
# Largest relative difference of a loss from the CPU's, in float32 without TF32.
LOSS_TOLERANCE = 1e-3
# Largest relative norm of the difference between gradients with and without DDP.
GRADIENT_TOLERANCE = 1e-3


def check_step(bench: Bench, stage: str, amp: bool) -> dict:
    """Trains a stage for some steps, and checks that loss and gradients are finite.

    Returns:
        ``loss`` of the last step and ``gradients_finite``, the median ``seconds`` of a step, the
        ``peak_mib``, and with AMP the number of ``skipped_steps``, whose gradients overflowed.
    """
    if amp:
        bench.require_gpu("mixed precision")
    cfg = bench.config()
    set_key(cfg, "SOLVER.AMP.ENABLED", amp)  # the optimizer reads it, too
    cfg = stage_config(cfg, stage)
    model = bench.build(cfg).train()
    with TemporaryDirectory(prefix="detr_d2_gpu_check_") as folder:
        trainer = Trainer(
            model,
            build_optimizer(cfg, model),
            accumulation_steps=1,
            mixed_precision=amp,
            seed=cfg.SEED,
            output_dir=folder,
        )
        trainer.reset_data_loader(lambda: itertools.repeat(bench.batch))
        with EventStorage() as trainer.storage:
            _find_scale(trainer)
            forget_peak(bench)
            device = bench.settings.device
            times = [seconds_of(trainer.run_step, device) for _ in range(bench.settings.repeats)]
            loss = trainer.storage.latest()["total_loss"][0]
    figures = {
        "loss": loss,
        "gradients_finite": math.isfinite(_norm(gradients(model))),
        "seconds": median(times),
        "peak_mib": peak_mib(bench),
    }
    if amp:
        figures["skipped_steps"] = trainer.skipped_steps
    if not (math.isfinite(loss) and figures["gradients_finite"]):
        raise CheckFailed("the loss or a gradient isn't finite", figures)
    return figures


def _find_scale(trainer: Trainer) -> None:
    """Takes steps until gradients don't overflow, so that AMP doesn't skip the step.

    Raises:
        CheckFailed: gradients overflow in all steps.
    """
    for _ in range(SCALING_STEPS):
        skipped = trainer.skipped_steps
        trainer.run_step()
        if trainer.skipped_steps == skipped:
            return
    raise CheckFailed(f"gradients overflowed in all of {SCALING_STEPS} steps")


def check_losses(bench: Bench) -> dict:
    """Compares all losses with a CPU's, on the same weights and images, in float32.

    Returns:
        The relative ``largest_difference`` and the ``tolerance``.
    """
    ours, reference = (
        {name: loss.item() for name, loss in _losses(bench, device).items()}
        for device in (bench.settings.device, "cpu")
    )
    differences = {name: abs(ours[name] / reference[name] - 1) for name in reference}
    worst = max(differences, key=differences.get)
    figures = {"largest_difference": differences[worst], "tolerance": LOSS_TOLERANCE}
    if not differences[worst] <= LOSS_TOLERANCE:
        raise CheckFailed(
            f"{worst} is {ours[worst]:.6g}, on the CPU {reference[worst]:.6g}", figures
        )
    return figures


@torch.no_grad()
def _losses(bench: Bench, device: str) -> dict[str, torch.Tensor]:
    model = bench.build(bench.config(DROPOUT=0.0), device).train()
    with exact_float32():
        return model(bench.batch)


def check_ddp(bench: Bench) -> dict:
    """Compares the gradients of a step with DDP, in one process, with those of a step without.

    Returns:
        ``backend``, the relative ``difference`` of all gradients, and the ``tolerance``.
    """
    model = bench.build(bench.config(DROPOUT=0.0)).train()
    device_ids = [next(model.parameters()).device.index] if bench.on_gpu else None
    backend = "nccl" if bench.on_gpu else "gloo"
    with exact_float32():
        sum(model(bench.batch).values()).backward()
        expected = gradients(model)
        model.zero_grad()
        with _process_group(backend):
            wrapped = DistributedDataParallel(model, device_ids=device_ids)
            sum(wrapped(bench.batch).values()).backward()
            actual = gradients(model)
    pairs = zip(actual, expected, strict=True)
    difference = _norm([ours - theirs for ours, theirs in pairs]) / _norm(expected)
    figures = {"backend": backend, "difference": difference, "tolerance": GRADIENT_TOLERANCE}
    if not difference <= GRADIENT_TOLERANCE:
        raise CheckFailed("gradients differ from those without DDP", figures)
    return figures


@contextmanager
def _process_group(backend: str) -> Iterator[None]:
    """A process group of this process alone, which needs no network."""
    # nccl looks for a network interface even for a single process.
    loopback = {"NCCL_SOCKET_IFNAME": os.environ.get("NCCL_SOCKET_IFNAME", "lo")}
    with (
        TemporaryDirectory(prefix="detr_d2_gpu_check_") as folder,
        mock.patch.dict(os.environ, loopback if backend == "nccl" else {}),
    ):
        store = Path(folder, "store").as_uri()
        torch.distributed.init_process_group(backend, store, rank=0, world_size=1)
        try:
            yield
        finally:
            torch.distributed.destroy_process_group()


def gradients(model: nn.Module) -> list[torch.Tensor]:
    """Copies of the gradients of all parameters that have one."""
    return [p.grad.detach().clone() for p in model.parameters() if p.grad is not None]


def _norm(tensors: list[torch.Tensor]) -> float:
    return torch.stack([x.double().norm() for x in tensors]).norm().item()

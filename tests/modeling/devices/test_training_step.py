"""A training step on a pretended GPU: criterion, gradients, clipping and the optimizer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torchvision.ops import box_convert

from detr_d2.engine.solver import build_optimizer
from detr_d2.engine.trainer import make_trainer
from detr_d2.engine.training_stages import stage_config
from detr_d2.modeling import criterion, losses, matcher
from detr_d2.modeling.targets import Target

SIZES = [(64, 96), (75, 70)]  # both padded, with grids of odd sides
SHALLOW = {
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.DETR.ENC_LAYERS": 1,
    "MODEL.DETR.DROPOUT": 0.0,
    "MODEL.DETR.MASK_HEAD.CHUNK_SIZE": 4,
    "SOLVER.BASE_LR": 0.01,
}
PARTS = {"boxes": {"detector"}, "masks": {"mask_head"}, "joint": {"detector", "mask_head"}}


class Step:
    """A training step of one stage, from a batch on the CPU to changed weights."""

    def __init__(self, cfg, batch: list[dict], device: str) -> None:
        torch.manual_seed(0)
        self.model = build_model(cfg).to(device).train()
        amp = cfg.SOLVER.AMP.ENABLED
        self.trainer = make_trainer(cfg, self.model, build_optimizer(cfg, self.model))
        # A scale at which random weights don't overflow, so that the step isn't skipped.
        self.trainer.grad_scaler = torch.amp.GradScaler(device, init_scale=8.0, enabled=amp)
        self.trainer.reset_data_loader(lambda: [batch])

    def take(self) -> dict[str, float]:
        """Takes the step, and gives the figures of the event storage."""
        with EventStorage() as self.trainer.storage:
            self.trainer.run_step()
        return {name: value for name, (value, _) in self.trainer.storage.latest().items()}

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: value.cpu() for name, value in self.model.state_dict().items()}

    def gradients(self) -> dict[str, torch.Tensor]:
        return {n: p.grad.cpu() for n, p in self.model.named_parameters() if p.requires_grad}


@pytest.fixture
def make_step(tiny_config, make_batch):
    """Prepares a step: ``(stage, overrides, device)``."""

    def make(stage: str, overrides: dict | None = None, device: str = "cuda") -> Step:
        cfg = stage_config(tiny_config({**SHALLOW, **(overrides or {})}), stage)
        return Step(cfg, make_batch(*SIZES), device)

    return make


PIXELS = {
    "MODEL.DETR.MASK_HEAD.NAME": "PixelEmbeddingMaskHead",
    "MODEL.DETR.LOSS.NUM_POINTS": 50,
}


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize(
    ("stage", "overrides"),
    [*((stage, {}) for stage in PARTS), ("masks", PIXELS), ("joint", PIXELS)],
    ids=[*PARTS, "masks, pixel embedding", "joint, pixel embedding"],
)
def test_a_step_of_each_stage_mixes_no_devices(make_step, pretended_gpu, stage, overrides, amp):
    overrides = {"SOLVER.AMP.ENABLED": amp, "MODEL.DETR.DROPOUT": 0.1, **overrides}
    step = make_step(stage, overrides)
    before = step.weights()
    figures = step.take()
    after = step.weights()
    parameters = list(step.model.parameters())
    assert {p.device for p in parameters} == {torch.device("cuda", 0)}
    assert {p.grad.device for p in parameters if p.requires_grad} == {torch.device("cuda", 0)}
    changed = {name.split(".")[0] for name in before if not before[name].equal(after[name])}
    assert changed == PARTS[stage]
    assert 0 < figures["total_loss"] < 100
    assert ("amp/loss_scale" in figures) == amp and not figures.get("amp/skipped_steps")


def test_what_is_pretended_computes_what_a_cpu_does(make_step, pretended_gpu, monkeypatch):
    """Node by node, gradients are those of PyTorch's engine."""
    overrides = {"MODEL.DETR.MASK_HEAD.CHECKPOINTING": True}
    pretended = make_step("joint", overrides)
    figures = pretended.take()
    monkeypatch.undo()
    real = make_step("joint", overrides, device="cpu")
    assert figures == pytest.approx({**real.take(), "data_time": figures["data_time"]}, rel=1e-5)
    expected = real.gradients()
    for name, gradient in pretended.gradients().items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-6)


def _boxes_elsewhere(boxes: torch.Tensor, *kinds: str) -> torch.Tensor:
    return box_convert(boxes, *kinds) * torch.ones(4)


def _weights_elsewhere(logits: torch.Tensor, classes: torch.Tensor, *_: object) -> torch.Tensor:
    weight = torch.ones(logits.shape[-1])
    return F.cross_entropy(logits.flatten(0, 1), classes.flatten(), weight)


def _masks_elsewhere(masks: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.ones(masks.shape)


@pytest.mark.parametrize(
    ("module", "name", "planted"),
    [
        (matcher, "box_convert", _boxes_elsewhere),
        (criterion, "class_loss", _weights_elsewhere),
        (losses, "_choose", _masks_elsewhere),
    ],
)
def test_a_constant_on_the_cpu_is_found(
    make_step, pretended_gpu, monkeypatch, module, name, planted
):
    step = make_step("joint")
    monkeypatch.setattr(module, name, planted)
    with pytest.raises(RuntimeError, match="on the same device, but found"):
        step.take()


def test_a_gradient_on_the_cpu_is_found(make_step, pretended_gpu, monkeypatch):
    step = make_step("masks")
    right = losses._FocalSum.backward
    wrong = staticmethod(lambda *args: (right(*args)[0].cpu(), None, None, None))
    monkeypatch.setattr(losses._FocalSum, "backward", wrong)
    with pytest.raises(RuntimeError, match="a gradient is on cpu, its tensor on cuda:0"):
        step.take()


def test_targets_that_stay_on_the_cpu_are_found(make_step, pretended_gpu, monkeypatch):
    right = Target.from_instances.__func__
    stay = classmethod(lambda cls, x, with_masks: right(cls, x.to("cpu"), with_masks))
    monkeypatch.setattr(Target, "from_instances", stay)
    with pytest.raises(RuntimeError, match="on the same device, but found"):
        make_step("boxes").take()


@pytest.mark.parametrize("num_layers", [1, 4])
def test_losses_wait_for_a_gpu_once_however_many_layers(make_step, pretended_gpu, num_layers):
    """For the costs of all matches; figures for the event storage aside."""
    step = make_step("boxes", {"MODEL.DETR.DEC_LAYERS": num_layers})
    batch = next(iter(step.trainer.data_loader))
    step.model(batch)  # what is computed once, such as positions
    del pretended_gpu.waits[:]
    step.model(batch)
    assert pretended_gpu.waits == ["aten._to_copy.default"]

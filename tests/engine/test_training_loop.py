"""A step of the training loop with gradient accumulation and mixed precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from detectron2.utils.events import EventStorage

from detr_d2.engine.training_loop import Trainer


class Line(torch.nn.Module):
    """A model of one weight; the images give its gradient. It records the parts of batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.parts: list[tuple[list[float], bool]] = []
        self.alone = False

    def divisors(self, batch) -> None:
        return None

    def forward(self, batch, divisors):
        slopes = [image["slope"] for image in batch]
        self.parts.append((slopes, self.alone))
        return {"loss": self.weight * sum(slopes)}

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Stands for the method of a model that is wrapped for several processes."""
        self.alone = True
        yield
        self.alone = False


PLAIN = {"accumulation_steps": 1, "mixed_precision": False, "seed": -1, "output_dir": ""}


def make_trainer(*batches: list[float], **options: object) -> Trainer:
    model = Line()
    options = {**PLAIN, **options}
    trainer = Trainer(model, torch.optim.SGD(model.parameters(), 0.1), **options)
    trainer.data_loader = [[{"slope": slope} for slope in batch] for batch in batches]
    return trainer


@pytest.mark.parametrize("mixed_precision", [False, True])
def test_parts_are_one_step(mixed_precision):
    """Processes exchange gradients only in the last part; the optimizer sees their sum."""
    options = {"accumulation_steps": 3, "mixed_precision": mixed_precision}
    trainer = make_trainer([1.0, 2.0, 0.5, 0.25, 0.0, 4.0], **options)
    with EventStorage() as trainer.storage:
        trainer.run_step()
        metrics = trainer.storage.latest()
    model = trainer.model
    assert model.parts == [([1.0, 2.0], True), ([0.5, 0.25], True), ([0.0, 4.0], False)]
    assert model.weight.item() == pytest.approx(1 - 0.1 * 7.75)
    assert metrics["total_loss"][0] == metrics["loss"][0] == pytest.approx(7.75)
    assert ("amp/loss_scale" in metrics) is mixed_precision


def test_steps_that_overflow_are_skipped_and_counted(caplog):
    trainer = make_trainer([1.0], [1e35], [2.0], mixed_precision=True)
    with caplog.at_level("INFO", logger="detr_d2"), EventStorage() as trainer.storage:
        weights = [trainer.run_step() or trainer.model.weight.item() for _ in range(3)]
        metrics = trainer.storage.latest()
    assert weights == pytest.approx([0.9, 0.9, 0.7])
    assert metrics["amp/skipped_steps"][0] == 1
    assert metrics["amp/loss_scale"][0] == 2.0**15  # half of the first value
    assert caplog.text.count("the step is skipped") == 1


def test_the_scale_and_the_count_are_resumed():
    trainer, other = (make_trainer([1e35], mixed_precision=True) for _ in range(2))
    with EventStorage() as trainer.storage:
        trainer.run_step()
    other.load_state_dict(trainer.state_dict())
    assert other.skipped_steps == 1 and other.grad_scaler.get_scale() == 2.0**15
    # The state of a run without mixed precision.
    state = Trainer(Line(), trainer.optimizer, **PLAIN).state_dict()
    other.load_state_dict(state)
    assert other.skipped_steps == 1

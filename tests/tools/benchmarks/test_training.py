"""All training steps learn the same from the same image."""

import pytest
from benchmarks.training import PLAIN, VARIANTS, prepare_step


def test_steps_have_the_same_losses_before_and_after_an_update(workload):
    steps = {name: prepare_step(name, workload, num_targets=3) for name in [*VARIANTS, PLAIN]}
    losses = {name: (step(), step()) for name, step in steps.items()}
    first, second = losses["matched queries"]
    assert second != first
    for name, values in losses.items():
        if not name.startswith("pixel head"):  # another head with weights of its own
            assert values == pytest.approx((first, second), rel=1e-4), name
    first, second = losses["pixel head"]
    assert second != first

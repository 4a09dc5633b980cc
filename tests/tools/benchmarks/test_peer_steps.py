"""Our training steps and transformers' learn from the same losses."""

import pytest
from benchmarks.peer_steps import NAMES, difference_of_gradients, prepare_peer_step

STAGES = ("boxes", "masks")


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_of_the_last_layers_losses_are_equal(workload, stage):
    assert difference_of_gradients(stage, workload, num_targets=3) < 1e-4


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", NAMES)
def test_a_step_learns(workload, stage, name):
    step = prepare_peer_step(name, stage, workload, num_targets=3)
    first, second = step(), step()
    assert second != first

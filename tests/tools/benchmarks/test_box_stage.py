"""Our step of the box stage and transformers' learn from the same losses."""

import pytest
from benchmarks.box_stage import NAMES, difference_of_gradients, prepare_box_step


def test_gradients_of_the_last_layers_losses_are_equal(workload):
    assert difference_of_gradients(workload, num_targets=3) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_a_step_learns(workload, name):
    step = prepare_box_step(name, workload, num_targets=3)
    first, second = step(), step()
    assert second != first

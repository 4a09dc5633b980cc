"""Hooks record, change nothing, and don't stay."""

import pytest
import torch
from torch import nn

from detr_d2.apps.explain.hook_recording import evaluating, output_of, recording


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Dropout(0.5))


def hooks_of(model):
    return [hook for module in model.modules() for hook in module._forward_hooks.values()]


def test_every_call_is_kept_in_order_and_outputs_stay(model):
    model.eval()
    inputs = torch.eye(2)
    expected = [model(row) for row in inputs]
    with recording(model, {"0": lambda args, out: (args[0], out), "2": output_of}) as calls:
        outputs = [model(row) for row in inputs]
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))
    assert torch.equal(torch.stack([seen for seen, _ in calls["0"]]), inputs)
    assert all(torch.equal(a, b) for a, b in zip(calls["2"], expected, strict=True))
    assert hooks_of(model) == []


def test_hooks_are_gone_after_errors(model):
    with pytest.raises(RuntimeError), recording(model, {"0": output_of, "1": output_of}):
        assert len(hooks_of(model)) == 2
        model(torch.zeros(7))
    with pytest.raises(AttributeError), recording(model, {"0": output_of, "missing": output_of}):
        pass
    assert hooks_of(model) == []


def test_each_module_goes_back_into_its_own_mode(model):
    model.train()
    model[0].eval()
    with pytest.raises(KeyError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in (model, *model)] == [True, False, True, True]

"""Backbones that Detectron2 itself reads: its model zoo's, pycls's, and any with a hint.

Detectron2 unpickles what it is given, so that each file is looked at before.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detr_d2.checkpoint import CheckpointError, CheckpointNotFoundError
from detr_d2.engine.checkpointer import StrictCheckpointer

PREFIX = "detector.backbone."
HINT = "?matching_heuristics=True"
# A name of a file and how such a file holds a state dict.
FILES = {
    "R-50.pkl": lambda weights: {
        "model": {name: tensor.numpy() for name, tensor in weights.items()},
        "__author__": "test",
        "matching_heuristics": True,
    },
    "R-50.pyth": lambda weights: {"model_state": weights, "epoch": 99},
    f"R-50.pth{HINT}": lambda weights: {"model": weights},
    f"R-50.pkl{HINT}": lambda weights: {
        "model": {name: tensor.numpy() for name, tensor in weights.items()},
        "__author__": "test",
        "matching_heuristics": True,
    },
}


class RunsCode:
    """Leaves a file where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.trace}",)


@pytest.fixture
def save(tmp_path) -> Callable[[str, object], str]:
    """Writes a file under a name, which may end in a hint; returns the path, hint included."""

    def write(name: str, content: object) -> str:
        path = tmp_path / name.removesuffix(HINT)
        if path.suffix == ".pkl":
            path.write_bytes(pickle.dumps(content))
        else:
            torch.save(content, path)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize("name", FILES)
def test_the_backbone_loads_and_the_rest_stays_as_it_is(name, save, make_model, assert_holds):
    model = make_model()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    backbone = {key: tensor + 2 for key, tensor in before.items() if key.startswith(PREFIX)}
    content = FILES[name]({key.removeprefix(PREFIX): t for key, t in backbone.items()})
    StrictCheckpointer(model, to_train=True).load(save(name, content))
    assert_holds(model, {**before, **backbone})


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_run(name, save, make_model, tmp_path):
    trace = tmp_path / "trace"
    content = FILES[name]({})
    key = "model_state" if "model_state" in content else "model"
    path = save(name, {**content, key: RunsCode(trace)})
    with pytest.raises(CheckpointError) as caught:
        StrictCheckpointer(make_model(), to_train=True).load(path)
    message = str(caught.value)
    assert "R-50" in message and f"{os.name}.system to be unpickled" in message
    assert "weights_only" not in message
    assert not trace.exists()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("overrides", "to_train"), [({}, False), ({"MODEL.DETR.FREEZE_DETECTOR": True}, True)]
)
def test_a_backbone_is_no_trained_detector(name, overrides, to_train, save, make_model):
    path = save(name, FILES[name]({"stem.conv1.weight": torch.zeros(64, 3, 7, 7)}))
    with pytest.raises(CheckpointError, match=r"R-50.* is a backbone to train from, and not a"):
        StrictCheckpointer(make_model(overrides), to_train=to_train).load(path)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_is_named(name, make_model, tmp_path):
    with pytest.raises(CheckpointNotFoundError, match="There is no checkpoint .*R-50"):
        StrictCheckpointer(make_model(), to_train=True).load(str(tmp_path / name))


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_which_nothing_matches_is_refused(name, save, make_model):
    """Detectron2 would warn, and training would start from scratch."""
    path = save(name, FILES[name]({"entirely.else": torch.zeros(3, 3)}))
    with pytest.raises(CheckpointError, match="No tensor belongs to a DETR: entirely.else"):
        StrictCheckpointer(make_model(), to_train=True).load(path)


def test_a_pyth_file_needs_a_model(save, make_model):
    with pytest.raises(CheckpointError, match="R-50.pyth: .*must contain 'model_state'"):
        StrictCheckpointer(make_model(), to_train=True).load(
            save("R-50.pyth", {"stem.conv1.weight": torch.zeros(1)})
        )

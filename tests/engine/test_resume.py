"""The checkpoint from which a run resumes, and older runs in the same folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from detr_d2.checkpoint import CheckpointError
from detr_d2.engine import train
from detr_d2.engine.checkpointer import StrictCheckpointer
from detr_d2.engine.training_stages import final_weights, set_aside, stage_config


@pytest.fixture(scope="module")
def make_cfg(make_fast_cfg) -> Callable:
    return lambda folder: make_fast_cfg(
        folder, "SOLVER.STAGES", ["boxes"], "SOLVER.MAX_ITER", 3, "SOLVER.CHECKPOINT_PERIOD", 1
    )


@pytest.fixture(scope="module")
def finished(make_cfg, tmp_path_factory) -> Path:
    """A stage with a checkpoint after each of three steps. Tests must not write to its folder."""
    cfg = make_cfg(tmp_path_factory.mktemp("finished"))
    train(cfg)
    return Path(cfg.OUTPUT_DIR, "boxes")


@pytest.fixture
def cfg(make_cfg, finished, tmp_path):
    """The config of a run that was killed after its last checkpoint, before model_final.pth."""
    shutil.copytree(finished, tmp_path / "boxes")
    (tmp_path / "boxes" / "model_final.pth").unlink()
    (tmp_path / "boxes" / "last_checkpoint").write_text("model_0000002.pth")
    return make_cfg(tmp_path)


def model_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    """Changes a bit inside a tensor; torch itself would load the file without an error."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.fixture
def found(cfg) -> Callable[[], str]:
    """Returns the name of the checkpoint from which the run resumes."""
    stage = stage_config(cfg, "boxes")
    checkpointer = StrictCheckpointer(build_model(stage), stage.OUTPUT_DIR)
    return lambda: Path(checkpointer.find_to_resume()).name


@pytest.mark.parametrize("damage", [cut_off, flip_a_bit, empty, Path.unlink])
def test_a_damaged_checkpoint_is_left_out(cfg, found, finished, damage, tmp_path, caplog):
    assert found() == "model_0000002.pth"
    damage(tmp_path / "boxes" / "model_0000002.pth")
    with caplog.at_level(logging.WARNING, logger="detr_d2"):
        assert found() == "model_0000001.pth"
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path}/boxes/model_0000002.pth is damaged or cut off")
    cut_off(tmp_path / "boxes" / "model_0000001.pth")
    assert found() == "model_0000000.pth"
    train(cfg, resume=True)  # This repeats two steps.
    expected, model = (model_of(f / "model_final.pth") for f in (finished, tmp_path / "boxes"))
    assert [key for key in expected if not torch.equal(model[key], expected[key])] == []


def test_a_damaged_final_model_has_others_before_it(cfg, found, tmp_path):
    final = tmp_path / "boxes" / "model_final.pth"
    shutil.copy(tmp_path / "boxes" / "model_0000002.pth", final)
    (tmp_path / "boxes" / "last_checkpoint").write_text(final.name)
    assert found() == "model_final.pth"
    cut_off(final)
    assert found() == "model_0000002.pth"


def test_who_goes_back_on_purpose_is_not_led_forward(found, tmp_path):
    """If the file in ``last_checkpoint`` is damaged, an earlier one is taken, and no later one."""
    (tmp_path / "boxes" / "last_checkpoint").write_text("model_0000001.pth")
    assert found() == "model_0000001.pth"
    cut_off(tmp_path / "boxes" / "model_0000001.pth")
    assert found() == "model_0000000.pth"


def test_where_nothing_is_whole_nothing_is_begun_anew_silently(cfg, tmp_path):
    for path in (tmp_path / "boxes").glob("*.pth"):
        cut_off(path)
    with pytest.raises(CheckpointError, match=r"No checkpoint .*boxes is complete\. Start again"):
        train(cfg, resume=True)
    train(cfg)
    assert len(list((tmp_path / "previous_1" / "boxes").glob("*.pth"))) == 3


def test_killed_before_the_final_model(cfg, finished, tmp_path):
    """All steps are done, so no step would save the final weights."""
    train(cfg, resume=True)
    final = torch.load(tmp_path / "boxes" / "model_final.pth", weights_only=True)
    expected = torch.load(finished / "model_final.pth", weights_only=True)
    assert final["iteration"] == final["trainer"]["iteration"] == expected["iteration"] == 2
    assert all(torch.equal(final["model"][key], expected["model"][key]) for key in final["model"])
    assert (tmp_path / "boxes" / "last_checkpoint").read_text() == "model_final.pth"


def test_what_others_left_unfinished_is_removed(cfg, tmp_path):
    strays = [
        tmp_path / "boxes" / name for name in ("model_final.pth.1.tmp", "last_checkpoint.1.tmp")
    ]
    for path in strays:
        path.touch()
    train(cfg, resume=True)
    assert not any(path.exists() for path in strays)


# --- older runs ---


def test_nothing_is_set_aside_where_nothing_was_saved(make_cfg, tmp_path):
    cfg = make_cfg(tmp_path)
    set_aside(cfg, "boxes")
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes" / "metrics.json").touch()
    set_aside(cfg, "boxes")
    assert [path.name for path in tmp_path.iterdir()] == ["boxes"]


def test_all_that_an_older_run_left_is_kept(cfg, tmp_path):
    """Even if --resume is forgotten several times."""
    files = sorted(path.name for path in (tmp_path / "boxes").iterdir())
    set_aside(cfg, "boxes")
    for number in (2, 3):
        (tmp_path / "boxes").mkdir()
        (tmp_path / "boxes" / "model_0000000.pth").touch()
        set_aside(cfg, "boxes")
        assert (tmp_path / f"previous_{number}" / "boxes" / "model_0000000.pth").exists()
    assert not (tmp_path / "boxes").exists()
    assert sorted(path.name for path in (tmp_path / "previous_1" / "boxes").iterdir()) == files


def test_an_older_runs_masks_are_not_those_of_new_boxes(make_fast_cfg, tmp_path):
    """Otherwise a new run that was killed in its first stage would end with the old masks."""
    cfg = make_fast_cfg(tmp_path, "SOLVER.CHECKPOINT_PERIOD", 1)
    train(cfg)
    older = model_of(final_weights(cfg, "masks"))
    (tmp_path / "boxes" / "model_final.pth").unlink()  # The stage looks as if it had just begun.
    shutil.rmtree(tmp_path / "boxes")
    cfg.SEED += 1
    train(cfg, resume=True)
    newer = model_of(final_weights(cfg, "masks"))
    boxes = model_of(final_weights(cfg, "boxes"))
    assert all(torch.equal(newer[key], boxes[key]) for key in boxes)
    assert any(not torch.equal(newer[key], older[key]) for key in boxes)
    kept = model_of(tmp_path / "previous_1" / "masks" / "model_final.pth")
    assert all(torch.equal(kept[key], older[key]) for key in older)

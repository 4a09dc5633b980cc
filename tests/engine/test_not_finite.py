"""Losses and gradients that aren't finite stop all processes; a file tells how to repeat it."""

import importlib
import json
from pathlib import Path

import pytest
import torch
from detectron2.engine import launch
from detectron2.utils import comm

from detr_d2.data.loader import build_train_loader
from detr_d2.engine import train
from detr_d2.engine.training_faults import NotFiniteError
from detr_d2.engine.training_stages import final_weights, stage_config

criterion = importlib.import_module("detr_d2.modeling.criterion")


@pytest.fixture
def cfg(make_fast_cfg, tmp_path):
    return make_fast_cfg(
        tmp_path,
        *("SOLVER.STAGES", ["boxes"], "SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 1),
    )


@pytest.fixture
def spoil(monkeypatch):
    """Replaces the class loss from a certain call on: ``(first call, loss of the logits)``."""

    def replace(first_call: int, loss) -> None:
        right, calls = criterion.class_loss, []

        def class_loss(logits, *args):
            calls.append(None)
            return right(logits, *args) if len(calls) <= first_call else loss(logits)

        monkeypatch.setattr(criterion, "class_loss", class_loss)

    return replace


def nan_loss(logits: torch.Tensor) -> torch.Tensor:
    return logits.sum() * float("nan")


def nan_gradient(logits: torch.Tensor) -> torch.Tensor:
    """A loss of 0 with a gradient that isn't finite."""
    return (logits * 0).sqrt().sum()


def nan_matching(logits: torch.Tensor) -> torch.Tensor:
    """Raises the matcher's error, in the middle of the model."""
    raise FloatingPointError("can't be matched.")


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (nan_loss, "loss_class is nan."),
        (nan_gradient, "The norm of all gradients is nan."),
        (nan_matching, "can't be matched."),
    ],
)
def test_a_run_stops_at_once_and_says_where(cfg, spoil, loss, said):
    spoil(2, loss)
    with pytest.raises(NotFiniteError) as caught:
        train(cfg)
    folder = Path(cfg.OUTPUT_DIR, "boxes")
    message = str(caught.value)
    assert message.startswith(f"Iteration 2 of stage 'boxes': {said}")
    assert f"{folder}/nan_0000002.json" in message and "SOLVER.BASE_LR" in message
    assert f"The last checkpoint, {folder}/model_0000001.pth, is intact" in message
    assert not Path(final_weights(cfg, "boxes")).exists()
    saved = torch.load(folder / "model_0000001.pth", weights_only=True)["model"]
    assert all(weight.isfinite().all() for weight in saved.values())


def test_what_is_written_repeats_the_step(cfg):
    with pytest.MonkeyPatch.context() as patch:
        right, calls = criterion.class_loss, []
        patch.setattr(
            criterion,
            "class_loss",
            lambda *args: calls.append(None) or right(*args) * (1 if len(calls) < 4 else torch.nan),
        )
        with pytest.raises(NotFiniteError):
            train(cfg)
    written = json.loads(Path(cfg.OUTPUT_DIR, "boxes", "nan_0000003.json").read_text())
    assert (written["iteration"], written["stage"], written["seed"]) == (3, "boxes", cfg.SEED)
    (process,) = written["processes"]
    assert process["rank"] == 0 and process["losses"].pop("loss_class") == "nan"
    assert all(0 < value < 100 for value in process["losses"].values())
    batch = next(iter(build_train_loader(stage_config(cfg, "boxes"), 3)))
    assert process["file_names"] == [image["file_name"] for image in batch]
    assert "--resume" in written["to_repeat"] and "'boxes'), 3" in written["to_repeat"]
    # The cause is removed, so --resume goes on.
    train(cfg, resume=True)
    assert Path(final_weights(cfg, "boxes")).exists()


def test_without_a_seed_nothing_is_promised(cfg, spoil):
    cfg.SEED = -1
    spoil(0, nan_loss)
    with pytest.raises(NotFiniteError, match="No checkpoint had been saved yet"):
        train(cfg)
    written = json.loads(Path(cfg.OUTPUT_DIR, "boxes", "nan_0000000.json").read_text())
    assert written["to_repeat"].startswith("Not to be repeated")


def test_of_a_batch_in_parts_the_guilty_part_is_named(cfg, spoil):
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATION_STEPS = 4, 4
    spoil(2, nan_loss)  # the third part
    with pytest.raises(NotFiniteError):
        train(cfg)
    written = json.loads(Path(cfg.OUTPUT_DIR, "boxes", "nan_0000000.json").read_text())
    batch = next(iter(build_train_loader(stage_config(cfg, "boxes"))))
    assert written["processes"][0]["file_names"] == [batch[2]["file_name"]]


def test_figures_that_explode_stop_the_run(tiny_cfg):
    """Without clipping, the model's own checks stop it."""
    tiny_cfg.SOLVER.STAGES, tiny_cfg.DATASETS.TEST = ["boxes"], ()
    tiny_cfg.SOLVER.BASE_LR, tiny_cfg.SOLVER.WARMUP_ITERS = 1e30, 0
    tiny_cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    with pytest.raises(FloatingPointError, match=r"not finite.* SOLVER\.BASE_LR"):
        train(tiny_cfg)
    assert not Path(final_weights(tiny_cfg, "boxes")).exists()


def _train_with_one_bad_process(cfg, loss) -> None:
    right = criterion.class_loss
    if comm.get_rank() == 1:
        criterion.class_loss = lambda logits, *args: loss(logits)
    try:
        train(cfg)
    except NotFiniteError as error:
        Path(cfg.OUTPUT_DIR, f"rank{comm.get_rank()}").write_text(str(error))
    criterion.class_loss = right


@pytest.mark.skipif(torch.cuda.is_available(), reason="would start the processes on GPUs")
@pytest.mark.parametrize(
    ("loss", "said"), [(nan_loss, "loss_class is nan."), (nan_matching, "can't be matched.")]
)
@pytest.mark.parametrize("parts", [1, 2])
def test_all_processes_stop_where_one_has_to(cfg, tmp_path, forked, loss, said, parts):
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATION_STEPS = 4, parts
    store = f"file://{tmp_path / 'store'}"
    launch(_train_with_one_bad_process, 2, dist_url=store, args=(cfg, loss))
    messages = [(tmp_path / f"rank{rank}").read_text() for rank in range(2)]
    assert messages[0] == messages[1]
    written = json.loads((tmp_path / "boxes" / "nan_0000000.json").read_text())
    well, ill = written["processes"]
    assert (well["error"], ill["error"], ill["rank"]) == ("", said, 1)
    assert set(well["file_names"]).isdisjoint(ill["file_names"])
    assert all(name in messages[0] for name in ill["file_names"])
    assert not any(name in messages[0] for name in well["file_names"])


def test_what_fails_in_its_last_step_is_not_evaluated(cfg, spoil, monkeypatch):
    evaluated = []
    monkeypatch.setattr(
        "detr_d2.engine.trainer.evaluate", lambda *args, **options: evaluated.append(1) or {}
    )
    train(cfg)
    assert evaluated == [1]
    spoil(3, nan_loss)
    with pytest.raises(NotFiniteError, match="Iteration 3 of"):
        train(cfg)
    assert evaluated == [1]

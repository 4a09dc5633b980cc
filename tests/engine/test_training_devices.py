"""Training with several processes, on CPU cores, and without a GPU."""

import json
import logging
import os
from pathlib import Path

import pytest
import torch
from detectron2.engine import launch
from detectron2.modeling import build_model
from detectron2.utils import comm

from detr_d2.engine import evaluate_only, train
from detr_d2.engine.trainer import leave_cores_to_loader, make_trainer
from detr_d2.engine.training_stages import final_weights, stage_config


def _train(cfg) -> None:
    train(cfg)
    processes = (comm.get_world_size(), comm.get_local_size())
    Path(cfg.OUTPUT_DIR, f"rank{comm.get_rank()}").write_text(json.dumps(processes))


@pytest.fixture
def take_a_step(make_tiny_cfg, tmp_path, images_of_one_size, forked):
    """Trains on four images; returns the losses, the weights, and the weights before the step.

    Batch norms are frozen, because their statistics would differ between parts. With SGD, the step
    shows the gradients themselves, clipped after all were added up.
    """

    def step(processes: int, parts: int) -> tuple[dict, dict, dict]:
        folder = tmp_path / f"{processes}_{parts}"
        cfg = make_tiny_cfg(
            folder,
            *("SOLVER.STAGES", ["joint"], "SOLVER.MAX_ITER", 1, "SOLVER.IMS_PER_BATCH", 4),
            *("SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", 0.5, "SOLVER.WARMUP_ITERS", 0),
            *("MODEL.RESNETS.NORM", "FrozenBN", "SOLVER.ACCUMULATION_STEPS", parts),
            *("DATASETS.TRAIN", (images_of_one_size,), "DATASETS.TEST", ()),
        )
        launch(_train, processes, dist_url=f"file://{folder}_store", args=(cfg,))
        found = [json.loads(path.read_text()) for path in folder.glob("rank*")]
        assert found == [[processes, processes]] * processes
        (line,) = (folder / "joint" / "metrics.json").read_text().splitlines()
        losses = {key: value for key, value in json.loads(line).items() if "loss" in key}
        torch.manual_seed(cfg.SEED)
        before = build_model(stage_config(cfg, "joint")).state_dict()
        after = torch.load(final_weights(cfg, "joint"), weights_only=True)["model"]
        return losses, after, before

    return step


@pytest.mark.skipif(torch.cuda.is_available(), reason="would start the processes on GPUs")
@pytest.mark.parametrize(("processes", "parts"), [(2, 1), (4, 1), (1, 2), (1, 4), (2, 2)])
def test_a_batch_is_one_however_it_is_shared_out(take_a_step, processes, parts):
    """Processes and parts have different numbers of targets and of "no object"."""
    expected_losses, expected, before = take_a_step(1, 1)
    losses, weights, _ = take_a_step(processes, parts)
    assert len(losses) == 9 and losses == pytest.approx(expected_losses, abs=1e-5, rel=1e-5)
    assert max((expected[key] - before[key]).abs().max() for key in before) > 0.01
    assert weights.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(weights[key], expected[key], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("key", ["SOLVER.IMS_PER_BATCH", "SOLVER.MASK_STAGE.IMS_PER_BATCH"])
def test_batches_that_cannot_be_shared_out_are_refused(make_fast_cfg, tmp_path, key):
    cfg = make_fast_cfg(tmp_path, "SOLVER.ACCUMULATION_STEPS", 2, key, 3)
    with pytest.raises(ValueError, match=rf"{key} is 3, but must be divisible by 2: .* \(1\)"):
        train(cfg)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="would start the processes on GPUs")
def test_two_processes_evaluate_one_model(make_tiny_cfg, tmp_path, forked):
    """It is the model of the checkpoint, although each process has its own batch statistics."""
    cfg = make_tiny_cfg(
        tmp_path,
        *("SOLVER.STAGES", ["joint"], "SOLVER.MAX_ITER", 2, "MODEL.RESNETS.NORM", "BN"),
        *("MODEL.DETR.TEST.SCORE_THRESH", 0.0, "MODEL.DETR.LOSS.NO_OBJECT_WEIGHT", 0.0),
        *("MODEL.DETR.TEST.SAVE_PREDICTIONS", True, "MODEL.DETR.TEST.NUM_PICTURES", 0),
    )
    launch(_train, 2, dist_url=f"file://{tmp_path / 'store'}", args=(cfg,))
    evaluate_only(cfg)
    folders = (tmp_path / "joint" / "inference", tmp_path / "inference")
    by_two, by_one = (json.loads(next(f.rglob("predictions.json")).read_text()) for f in folders)
    assert [a["image_id"] for a in by_two["annotations"]] == [1, 2, 3, 4, 5, 6]
    scores = [s["score"] for a in by_one["annotations"] for s in a["segments_info"]]
    assert scores and by_two == by_one


def test_without_a_gpu_mixed_precision_is_left_off(tiny_cfg, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tiny_cfg.SOLVER.AMP.ENABLED = True
    tiny_cfg.SOLVER.STAGES, tiny_cfg.SOLVER.MAX_ITER, tiny_cfg.DATASETS.TEST = ["boxes"], 1, ()
    with caplog.at_level(logging.WARNING):
        train(tiny_cfg)
    assert caplog.text.count("SOLVER.AMP.ENABLED needs a GPU: training in float32.") == 1
    weights = torch.load(final_weights(tiny_cfg, "boxes"), weights_only=True)["model"]
    assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float32}


def test_mixed_precision_scales_losses(tiny_cfg, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model = torch.nn.Linear(1, 1)
    for enabled in (False, True):
        tiny_cfg.SOLVER.AMP.ENABLED = enabled
        trainer = make_trainer(tiny_cfg, model, torch.optim.SGD(model.parameters(), 1.0))
        assert trainer.grad_scaler.is_enabled() is enabled
        assert ("grad_scaler" in trainer.state_dict()) is enabled


@pytest.mark.parametrize(
    ("cores", "processes", "workers", "threads"),
    [(8, 1, 2, 6), (8, 2, 1, 3), (2, 1, 1, 1), (2, 1, 4, 1), (1, 2, 0, 1), (4, 1, 0, 4)],
)
def test_cores_are_shared_with_the_loader(
    tiny_cfg, monkeypatch, cores, processes, workers, threads
):
    chosen = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(comm, "get_local_size", lambda: processes)
    tiny_cfg.DATALOADER.NUM_WORKERS = workers
    leave_cores_to_loader(tiny_cfg)
    assert chosen == [threads]


def test_the_users_number_of_threads_and_gpus_are_left_alone(tiny_cfg, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda _: pytest.fail("changed"))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    leave_cores_to_loader(tiny_cfg)
    monkeypatch.delenv("OMP_NUM_THREADS")
    tiny_cfg.MODEL.DEVICE = "cuda"
    leave_cores_to_loader(tiny_cfg)

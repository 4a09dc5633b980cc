"""Training on what there is: several processes, CPU cores, no GPU; and figures that explode."""

import importlib
import json
import logging
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import SimpleTrainer, launch
from detectron2.modeling import build_model
from detectron2.utils import comm

from detr_d2.data.panoptic_dataset import set_panoptic_metadata
from detr_d2.data.shapes import CATEGORIES
from detr_d2.engine import evaluate_only, train
from detr_d2.engine.stages import final_weights, stage_config
from detr_d2.engine.trainer import leave_cores_to_loader, make_trainer

ONE_SIZE = "small_shapes_of_one_size"


@pytest.fixture
def images_of_one_size(small_shapes):
    """Batches are padded to their largest image, which differs between processes."""
    images = [image for name in small_shapes for image in DatasetCatalog.get(name)]
    sizes = [(image["height"], image["width"]) for image in images]
    most = max(set(sizes), key=sizes.count)
    chosen = [image for image, size in zip(images, sizes, strict=True) if size == most]
    assert len(chosen) >= 4
    DatasetCatalog.register(ONE_SIZE, lambda: chosen)
    set_panoptic_metadata(ONE_SIZE, map(vars, CATEGORIES))
    yield ONE_SIZE
    DatasetCatalog.remove(ONE_SIZE)
    MetadataCatalog.remove(ONE_SIZE)


@pytest.fixture
def forked(monkeypatch):
    """Detectron2's launcher, by forks: fresh processes would spend 20 s on imports."""
    module = importlib.import_module("detectron2.engine.launch")
    monkeypatch.setattr(
        module.mp, "start_processes", partial(module.mp.start_processes, start_method="fork")
    )


def _train(cfg) -> None:
    train(cfg)
    processes = (comm.get_world_size(), comm.get_local_size())
    Path(cfg.OUTPUT_DIR, f"rank{comm.get_rank()}").write_text(json.dumps(processes))


@pytest.mark.skipif(torch.cuda.is_available(), reason="would start the processes on GPUs")
def test_two_processes_train_as_one(make_tiny_cfg, tmp_path, images_of_one_size, forked):
    """Losses and weights after one step on the same four images.

    Batch norms would have statistics of their own in each process, and so would the weights in the
    mean over queries, were "no object" not weighted as all classes. With SGD the step shows the
    gradients themselves, clipped after they were averaged.
    """
    weights, losses = [], []
    for number in (1, 2):
        cfg = make_tiny_cfg(
            tmp_path / str(number),
            *("SOLVER.STAGES", ["joint"], "SOLVER.MAX_ITER", 1, "SOLVER.IMS_PER_BATCH", 4),
            *("SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", 0.5, "SOLVER.WARMUP_ITERS", 0),
            *("MODEL.RESNETS.NORM", "FrozenBN", "MODEL.DETR.LOSS.NO_OBJECT_WEIGHT", 1.0),
            *("DATASETS.TRAIN", (images_of_one_size,), "DATASETS.TEST", ()),
        )
        launch(_train, number, dist_url=f"file://{tmp_path / 'store'}", args=(cfg,))
        processes = [json.loads(path.read_text()) for path in tmp_path.glob(f"{number}/rank*")]
        assert processes == [[number, number]] * number
        weights.append(torch.load(final_weights(cfg, "joint"), weights_only=True)["model"])
        (line,) = (tmp_path / str(number) / "joint" / "metrics.json").read_text().splitlines()
        metrics = json.loads(line)
        losses.append({key: value for key, value in metrics.items() if "loss" in key})
    assert len(losses[0]) == 9 and losses[1] == pytest.approx(losses[0], abs=1e-5, rel=1e-5)
    torch.manual_seed(cfg.SEED)
    start = build_model(stage_config(cfg, "joint")).state_dict()
    assert max((weights[0][key] - start[key]).abs().max() for key in start) > 0.01
    assert weights[0].keys() == weights[1].keys()
    for key in weights[0]:
        torch.testing.assert_close(weights[0][key], weights[1][key], atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="would start the processes on GPUs")
def test_two_processes_evaluate_one_model(make_tiny_cfg, tmp_path, forked):
    """That which the checkpoint holds, though each has trained batch statistics of its own."""
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


def test_mixed_precision_uses_detectron2s_trainer(tiny_cfg, monkeypatch):
    made = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("detr_d2.engine.trainer.AMPTrainer", lambda *args: made.append(args))
    model, optimizer = torch.nn.Linear(1, 1), object()
    assert isinstance(make_trainer(tiny_cfg, model, optimizer), SimpleTrainer) and not made
    tiny_cfg.SOLVER.AMP.ENABLED = True
    make_trainer(tiny_cfg, model, optimizer)
    assert made == [(model, [], optimizer)]


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


def test_figures_that_explode_stop_the_run(tiny_cfg):
    tiny_cfg.SOLVER.STAGES, tiny_cfg.DATASETS.TEST = ["boxes"], ()
    tiny_cfg.SOLVER.BASE_LR, tiny_cfg.SOLVER.WARMUP_ITERS = 1e30, 0
    tiny_cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    with pytest.raises(FloatingPointError, match=r"not finite.* SOLVER\.BASE_LR"):
        train(tiny_cfg)
    assert not Path(final_weights(tiny_cfg, "boxes")).exists()


def test_losses_that_explode_stop_the_run(tiny_cfg, monkeypatch):
    """Where the classes and boxes, which the matcher checks, are fine."""
    criterion = importlib.import_module("detr_d2.modeling.criterion")
    monkeypatch.setattr(criterion, "class_loss", lambda logits, *_: logits.sum() * float("nan"))
    tiny_cfg.SOLVER.STAGES, tiny_cfg.DATASETS.TEST = ["boxes"], ()
    with pytest.raises(FloatingPointError, match="infinite or NaN at iteration=0"):
        train(tiny_cfg)
    assert not Path(final_weights(tiny_cfg, "boxes")).exists()

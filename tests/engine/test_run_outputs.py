"""The outputs of a run for people: log, metrics, TensorBoard events, pictures."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.modeling import build_model
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

from detr_d2.engine import train
from detr_d2.engine.training_stages import stage_config

BOX_LOSSES = {
    "loss_class",
    "loss_l1",
    "loss_giou",
    "loss_class_0",
    "loss_l1_0",
    "loss_giou_0",
}
MASK_LOSSES = {"loss_mask", "loss_dice"}
METRICS = {"metrics/class_error", "metrics/cardinality_error"}


def read_metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


@pytest.fixture(scope="module", params=["boxes", "masks"])
def stage(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def events(finished_run, stage) -> EventAccumulator:
    accumulator = EventAccumulator(str(finished_run.folder / stage))
    accumulator.Reload()
    return accumulator


def test_tensorboard_gets_losses_and_figures(events, stage):
    scalars = set(events.Tags()["scalars"])
    losses, others = (BOX_LOSSES, MASK_LOSSES) if stage == "boxes" else (MASK_LOSSES, BOX_LOSSES)
    assert losses | METRICS | {"total_loss", "lr"} <= scalars
    assert not others & scalars
    quality = {"panoptic_seg/PQ", "panoptic_seg/SQ_th", "panoptic_seg/PQ-ball", "segm/AP"}
    assert quality & scalars == (set() if stage == "boxes" else quality)
    assert "bbox/AP" in scalars


def test_tensorboard_gets_figures_of_every_evaluation(events):
    assert [event.step for event in events.Scalars("bbox/AP")] == [2, 5]


def test_one_tensorboard_shows_the_stages_side_by_side(finished_run):
    """In ``tensorboard --logdir OUTPUT_DIR`` each stage is a run with its name and equal tags."""
    runs = EventMultiplexer().AddRunsFromDirectory(str(finished_run.folder)).Reload().Runs()
    assert runs.keys() == {"boxes", "masks"}
    tags = {stage: set(run["tensors"]) for stage, run in runs.items()}
    assert "panoptic_seg/PQ" in tags["masks"]
    assert "bbox/AP" in tags["boxes"] & tags["masks"]


def test_tensorboard_gets_the_iou_of_each_query(events, stage):
    wanted = ["metrics/mask_iou_of_queries"] if stage == "masks" else []
    assert events.Tags()["histograms"] == wanted


def test_tensorboard_gets_validation_pictures(events):
    assert events.Tags()["images"] == ["small_shapes_val/1"]
    for event in events.Images("small_shapes_val/1"):
        picture = cv2.imdecode(np.frombuffer(event.encoded_image_string, np.uint8), 1)
        assert picture.shape == (event.height, event.width, 3)
        assert event.width > 2.2 * event.height  # There are three images side by side.


def test_pictures_are_files_too(finished_run, stage, events):
    (path,) = (finished_run.folder / stage / "pictures").iterdir()
    assert path.name == "small_shapes_val.png"
    picture = cv2.imread(str(path))
    last = events.Images("small_shapes_val/1")[-1]
    np.testing.assert_array_equal(
        picture, cv2.imdecode(np.frombuffer(last.encoded_image_string, np.uint8), 1)
    )


def test_the_log_tells_what_is_trained(finished_run):
    for stage, frozen in (("boxes", False), ("masks", True)):
        model = build_model(stage_config(finished_run.cfg, stage))
        sizes = {name: p.numel() for name, p in model.named_parameters()}
        head = sum(size for name, size in sizes.items() if name.startswith("mask_head."))
        detector = sum(sizes.values()) - head
        counts = (head, detector) if frozen else (detector, 0)
        line = "Stage {!r}: {:,} parameters trainable, {:,} frozen".format(stage, *counts)
        assert finished_run.log.count(line) == 1


def test_the_log_tells_what_is_done(finished_run):
    log = "\n".join(finished_run.log)
    assert "Stage 'boxes': iterations 0 to 5" in log and "Stage 'masks': iterations 0 to 5" in log
    assert log.count("Panoptic Evaluation Results") == 2


def test_metrics_are_no_losses(make_tiny_cfg, tmp_path):
    """Detectron2 adds up all returned losses, so metrics go to the event storage."""
    cfg = make_tiny_cfg(
        tmp_path,
        *("SOLVER.STAGES", ["joint"], "SOLVER.MAX_ITER", 1, "DATASETS.TEST", ()),
    )
    train(cfg)
    (metrics,) = read_metrics(tmp_path / "joint")
    losses = {key: value for key, value in metrics.items() if key.startswith("loss_")}
    assert losses.keys() == BOX_LOSSES | MASK_LOSSES
    assert metrics["total_loss"] == pytest.approx(sum(losses.values()), rel=1e-6)
    assert METRICS <= metrics.keys() and 0 <= metrics["metrics/class_error"] <= 100


def test_without_auxiliary_losses_the_last_layer_alone_is_trained(make_tiny_cfg, tmp_path):
    cfg = make_tiny_cfg(
        tmp_path,
        *("SOLVER.STAGES", ["boxes"], "SOLVER.MAX_ITER", 1, "DATASETS.TEST", ()),
        *("MODEL.DETR.AUX_LOSS", False),
    )
    train(cfg)
    (metrics,) = read_metrics(tmp_path / "boxes")
    assert {key for key in metrics if key.startswith("loss_")} == {
        "loss_class",
        "loss_l1",
        "loss_giou",
    }

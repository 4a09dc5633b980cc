"""Detection with Detectron2's instance datasets: training, evaluation, and missing COCO."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from detr_d2.engine import evaluate_only, train
from detr_d2.engine.model_evaluation import evaluate
from detr_d2.engine.training_stages import final_weights
from detr_d2.evaluation import write_thing_instances

NUM_THINGS = 6
DETECTION = ("MODEL.DETR.MASK_ON", False, "SOLVER.STAGES", ["boxes"])


@pytest.fixture(scope="module")
def instance_shapes(
    small_shapes: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """Registers the things of the embedded scenes like COCO's instances; gives two names."""
    folder = tmp_path_factory.mktemp("instance_shapes")
    names = {f"{name}_instances": name for name in small_shapes}
    for name, panoptic_name in names.items():
        json_file = str(folder / f"{name}.json")
        write_thing_instances(panoptic_name, json_file)
        register_coco_instances(
            name, {}, json_file, str(Path(DatasetCatalog.get(panoptic_name)[0]["file_name"]).parent)
        )
    yield tuple(names)
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def make_cfg(make_tiny_cfg, instance_shapes, tmp_path) -> Callable[..., CfgNode]:
    train_name, val_name = instance_shapes
    return lambda *overrides: make_tiny_cfg(
        tmp_path,
        *("DATASETS.TRAIN", (train_name,), "DATASETS.TEST", (val_name,)),
        *("MODEL.DETR.NUM_CLASSES", NUM_THINGS, "SOLVER.MAX_ITER", 3, "TEST.EVAL_PERIOD", 2),
        *overrides,
    )


def read_metrics(folder: Path) -> dict:
    """The last value of each."""
    lines = (folder / "metrics.json").read_text().splitlines()
    return {key: value for line in lines for key, value in json.loads(line).items()}


def test_a_detector_is_trained_and_evaluated(make_cfg, tmp_path):
    cfg = make_cfg(*DETECTION)
    results = train(cfg)
    assert results.keys() == {"bbox"}
    things = MetadataCatalog.get(cfg.DATASETS.TEST[0]).thing_classes
    assert len(things) == NUM_THINGS
    assert {"AP", "AP50", "APs"} | {f"AP-{name}" for name in things} <= results["bbox"].keys()
    weights = torch.load(final_weights(cfg, "boxes"), weights_only=True)["model"]
    assert all(key.startswith("detector.") for key in weights)
    assert len(weights["detector.class_head.bias"]) == NUM_THINGS + 1

    metrics = read_metrics(tmp_path / "boxes")
    assert metrics["bbox/AP"] >= 0 and metrics["loss_class"] > 0 and "loss_mask" not in metrics
    assert cv2.imread(str(tmp_path / "boxes/pictures" / f"{cfg.DATASETS.TEST[0]}.png")) is not None
    assert evaluate_only(cfg)["bbox"] == pytest.approx(results["bbox"], nan_ok=True)


def test_masks_of_instances_are_trained_and_evaluated(make_cfg, tmp_path):
    """Both stages are run. There is no panoptic quality without panoptic annotation."""
    results = train(make_cfg("SOLVER.MASK_STAGE.MAX_ITER", 2))
    assert results.keys() == {"bbox", "segm"}
    metrics = read_metrics(tmp_path / "masks")
    assert metrics["loss_mask"] > 0 and metrics["loss_dice"] > 0


def test_a_wrong_number_of_classes_is_noticed_before_training(make_cfg, tmp_path):
    with pytest.raises(ValueError, match=r"has 6 classes .* Set MODEL\.DETR\.NUM_CLASSES to 6"):
        train(make_cfg(*DETECTION, "MODEL.DETR.NUM_CLASSES", 7))
    assert not list(tmp_path.rglob("*.pth"))


def test_nothing_to_evaluate_is_said(make_cfg, caplog):
    cfg = make_cfg(*DETECTION, "MODEL.DETR.TEST.INSTANCES_ON", False)
    with caplog.at_level(logging.WARNING, logger="detr_d2"):
        assert evaluate(cfg, torch.nn.Identity()) == {}
    assert "Nothing to evaluate on small_shapes_val_instances" in caplog.text


@pytest.mark.parametrize("options", [[], ["--eval-only"]])
def test_missing_coco_is_named_at_once(run_cli, tmp_path, options):
    config = ["--config-file", "detr_detection.yaml"]
    with pytest.raises(SystemExit) as caught:
        run_cli("train", *config, *options, "OUTPUT_DIR", tmp_path)
    message = str(caught.value)
    assert message.startswith("error: Dataset 'coco_2017_val' is not there: ")
    assert "coco/annotations/instances_val2017.json does not exist" in message
    assert "DETECTRON2_DATASETS" in message and "\n" not in message

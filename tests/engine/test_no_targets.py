"""Datasets with only crowds: training refuses them, or reads crowds as objects."""

import json

import pytest
from detectron2.data import MetadataCatalog

from detr_d2.data.check import check_datasets
from detr_d2.data.loader import build_train_loader
from detr_d2.data.panoptic_dataset import get_dataset_dicts
from detr_d2.engine import train
from detr_d2.evaluation import build_evaluators

pytestmark = pytest.mark.usefixtures("registry")


@pytest.fixture
def crowds_cfg(make_tiny_cfg, small_shapes, tmp_path):
    """A config of the small shapes with every segment marked as a crowd, even stuff."""
    name = list(small_shapes)[1]
    get_dataset_dicts([name])  # This call writes the files.
    shapes = MetadataCatalog.get(name)
    with open(shapes.panoptic_json, encoding="utf-8") as file:
        content = json.load(file)
    for annotation in content["annotations"]:
        for segment in annotation["segments_info"]:
            segment["iscrowd"] = 1
    path = tmp_path / "crowds.json"
    path.write_text(json.dumps(content))
    entry = ["crowds", shapes.image_root, shapes.panoptic_root, str(path)]
    cfg = make_tiny_cfg(
        tmp_path / "output",
        *("DATASETS.TRAIN", ("crowds",), "DATASETS.TEST", ("crowds",)),
        *("DATASETS.PANOPTIC", [entry], "SOLVER.STAGES", ["joint"]),
    )
    cfg.MODEL.WEIGHTS = ""
    return cfg


def test_nothing_but_crowds_stops_before_an_earlier_run_is_touched(crowds_cfg, tmp_path):
    earlier = tmp_path / "output" / "joint" / "model_final.pth"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("earlier")
    with pytest.raises(ValueError, match=r"crowds: nothing to learn from.*CROWDS_AS_THINGS True"):
        train(crowds_cfg)
    assert earlier.read_text() == "earlier"


def test_crowds_are_things_for_check_training_and_evaluation_alike(crowds_cfg, tmp_path):
    crowds_cfg.DATASETS.CROWDS_AS_THINGS = True
    batch = next(iter(build_train_loader(crowds_cfg)))
    assert all(len(image["instances"]) for image in batch)
    dicts = get_dataset_dicts(["crowds"])
    segments = [segment for record in dicts for segment in record["segments_info"]]
    assert all(segment["iscrowd"] == (not segment["isthing"]) for segment in segments)
    num_things = sum(segment["isthing"] for segment in segments)
    assert num_things
    (report,) = check_datasets(crowds_cfg)
    figures = report.to_dict()["classes"]
    assert sum(c["segments"] for c in figures) == num_things
    # There is an instance JSON from another reading, and it is not used.
    stale = tmp_path / "stale.json"
    stale.write_text("{}")
    MetadataCatalog.get("crowds").json_file = str(stale)
    instances, _ = build_evaluators(crowds_cfg, "crowds")
    annotations = instances._coco_api.dataset["annotations"]
    assert len(annotations) == num_things and not any(a["iscrowd"] for a in annotations)


def test_the_next_config_decides_anew(crowds_cfg):
    crowds_cfg.DATASETS.CROWDS_AS_THINGS = True
    build_train_loader(crowds_cfg)
    crowds_cfg.DATASETS.CROWDS_AS_THINGS = False
    with pytest.raises(ValueError, match="nothing to learn from"):
        build_train_loader(crowds_cfg)

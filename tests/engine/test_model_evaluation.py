"""Evaluation reads each dataset once, and changes no dict."""

import copy

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.modeling import build_model

from detr_d2.engine.model_evaluation import evaluate
from detr_d2.evaluation import write_thing_instances

NAMES = ("small_shapes_val", "small_shapes_train")


@pytest.fixture
def readings(monkeypatch) -> list[tuple[str, list[dict], list[dict]]]:
    """Records each reading of a dataset: its name, its dicts and a copy of the dicts."""
    recorded, get = [], DatasetCatalog.get

    def read(name: str) -> list[dict]:
        dicts = get(name)
        recorded.append((name, dicts, copy.deepcopy(dicts)))
        return dicts

    monkeypatch.setattr(DatasetCatalog, "get", read)
    return recorded


def test_a_panoptic_dataset_is_read_once_for_all(make_tiny_cfg, readings, tmp_path):
    """Loader, evaluators and pictures share it. Only the first evaluation writes instances."""
    cfg = make_tiny_cfg(tmp_path, "DATASETS.TEST", NAMES)
    model = build_model(cfg)
    for _ in range(2):
        readings.clear()
        results = evaluate(cfg, model)
        assert [name for name, _, _ in readings] == list(NAMES)
        assert all(dicts == before for _, dicts, before in readings)
        assert all(results[name].keys() == {"panoptic_seg", "bbox", "segm"} for name in NAMES)
    assert {path.stem for path in (tmp_path / "pictures").iterdir()} == set(NAMES)


def test_a_dataset_of_instances_is_read_once_for_all(make_tiny_cfg, registry, readings, tmp_path):
    write_thing_instances(NAMES[0], tmp_path / "things.json")
    name = "instances_of_evaluate_test"
    register_coco_instances(
        name, {}, str(tmp_path / "things.json"), MetadataCatalog.get(NAMES[0]).image_root
    )
    cfg = make_tiny_cfg(
        tmp_path,
        *("DATASETS.TRAIN", (), "DATASETS.TEST", (name,)),
        *("MODEL.DETR.MASK_ON", False, "MODEL.DETR.NUM_CLASSES", 6),
    )
    model = build_model(cfg)
    readings.clear()
    assert evaluate(cfg, model).keys() == {"bbox"}
    ((read, dicts, before),) = readings
    assert read == name and dicts == before

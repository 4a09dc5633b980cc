"""The evaluators of a dataset, and box and mask AP on a dataset that has only instances."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import DatasetEvaluators
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from detr_d2.data.instance_annotations import annotation_mask
from detr_d2.data.panoptic_dataset import get_dataset_dicts
from detr_d2.evaluation import PanopticEvaluator, ThingInstanceEvaluator, build_evaluators
from detr_d2.evaluation.average_precision import InstanceEvaluator

pytestmark = pytest.mark.usefixtures("registry")

NAME = "instances_of_build_test"
SIZE = (48, 64)


def annotation(number: int, image_id: int, category: int, box: list[int]) -> dict:
    left, top, width, height = box
    right, bottom = left + width, top + height
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category,
        "bbox": box,
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
    }


def write_and_register(root: Path, with_masks: bool = True) -> None:
    """Two images with instances and one without; ids of categories and images have gaps."""
    annotations = [
        annotation(1, 5, 90, [4, 5, 30, 20]),
        annotation(2, 5, 3, [40, 20, 12, 28]),
        annotation(3, 7, 3, [0, 0, 64, 48]),
    ]
    if not with_masks:
        annotations = [
            {key: value for key, value in a.items() if key != "segmentation"} for a in annotations
        ]
    images = [
        {"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]} for i in (5, 7, 9)
    ]
    categories = [{"id": 90, "name": "brush"}, {"id": 3, "name": "car"}]
    (root / "images").mkdir()
    for image in images:
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / "images" / image["file_name"])
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(content))
    register_coco_instances(NAME, {}, str(root / "instances.json"), str(root / "images"))


def perfect_prediction(image: dict) -> dict:
    annotations = image["annotations"]
    instances = Instances(SIZE)
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    instances.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    instances.scores = torch.full((len(boxes),), 0.9)
    instances.pred_classes = torch.tensor([a["category_id"] for a in annotations]).long()
    if all("segmentation" in a for a in annotations):
        masks = [annotation_mask(a["segmentation"], SIZE, "") for a in annotations]
        instances.pred_masks = torch.tensor(np.array(masks).reshape(-1, *SIZE), dtype=torch.bool)
    return {"instances": instances}


def evaluate(evaluators: list, swap_classes: bool = False) -> dict:
    evaluator = DatasetEvaluators(evaluators)
    evaluator.reset()
    for image in get_dataset_dicts([NAME]):
        output = perfect_prediction(image)
        if swap_classes:
            output["instances"].pred_classes = 1 - output["instances"].pred_classes
        evaluator.process([image], [output])
    return evaluator.evaluate()


def test_perfect_predictions_have_an_ap_of_100(tiny_cfg, tmp_path):
    write_and_register(tmp_path)
    (evaluator,) = build_evaluators(tiny_cfg, NAME)  # There is no PQ, although masks are on.
    assert tiny_cfg.MODEL.DETR.MASK_ON and type(evaluator) is InstanceEvaluator
    results = evaluate([evaluator])
    assert list(results) == ["bbox", "segm"]
    for figures in results.values():
        for key in ("AP", "AP-brush", "AP-car"):
            assert figures[key] == pytest.approx(100)
    written = tmp_path / "output" / "inference" / NAME / "coco_instances_results.json"
    assert {each["category_id"] for each in json.loads(written.read_text())} == {3, 90}


def test_wrong_classes_score_nothing(tiny_cfg, tmp_path):
    write_and_register(tmp_path)
    results = evaluate(build_evaluators(tiny_cfg, NAME), swap_classes=True)
    assert results["bbox"]["AP"] == results["segm"]["AP"] == 0


def test_a_detector_is_evaluated_by_its_boxes(tiny_cfg, tmp_path):
    write_and_register(tmp_path, with_masks=False)
    tiny_cfg.MODEL.DETR.MASK_ON = False
    results = evaluate(build_evaluators(tiny_cfg, NAME))
    assert list(results) == ["bbox"] and results["bbox"]["AP"] == pytest.approx(100)


def test_nothing_to_evaluate(tiny_cfg, tmp_path):
    write_and_register(tmp_path)
    tiny_cfg.MODEL.DETR.TEST.INSTANCES_ON = False
    assert build_evaluators(tiny_cfg, NAME) == []


def test_panoptic_datasets_keep_their_evaluators(tiny_cfg):
    """Even after the first evaluation, when the metadata names an instance JSON, too."""
    name = tiny_cfg.DATASETS.TEST[0]
    for _ in range(2):
        kinds = [type(evaluator) for evaluator in build_evaluators(tiny_cfg, name)]
        assert kinds == [ThingInstanceEvaluator, PanopticEvaluator]
        assert MetadataCatalog.get(name).json_file
    tiny_cfg.MODEL.DETR.MASK_ON = False
    (evaluator,) = build_evaluators(tiny_cfg, name)
    assert type(evaluator) is ThingInstanceEvaluator

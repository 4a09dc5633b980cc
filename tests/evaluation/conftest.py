"""A small panoptic dataset on disk, and predictions of it that are not quite right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from detr_d2.data.panoptic_png import read_panoptic_png, write_panoptic_png
from detr_d2.evaluation import PanopticEvaluator

NAME = "blocks"
SIZE = (24, 32)
# Neither dataset ids nor things come in the order of classes.
CATEGORIES = [
    {"id": 20, "name": "grass", "isthing": 0},
    {"id": 3, "name": "cat", "isthing": 1},
    {"id": 11, "name": "sky", "isthing": 0},
    {"id": 1, "name": "dog", "isthing": 1},
]


@pytest.fixture
def make_dataset(tmp_path: Path, registry: None) -> Callable[..., list[dict]]:
    """Writes a dataset into a folder, registers it as "blocks" and gives its dicts."""

    def make(image_ids=(1, 2), root: Path = tmp_path, **options) -> list[dict]:
        write_dataset(root, image_ids, **options)
        register(root)
        return DatasetCatalog.get(NAME)

    return make


@pytest.fixture
def predict() -> Callable[[dict], dict]:
    return predict_image


@pytest.fixture
def run() -> Callable[..., dict]:
    """Evaluates the predictions of some images, by default of all: ``run(evaluator, images)``."""
    return run_evaluator


def class_maps(isthing: int) -> dict[int, int]:
    return {c["id"]: k for k, c in enumerate(CATEGORIES) if c["isthing"] == isthing}


def register(root: Path) -> None:
    """Registers the dataset written in `root`, as Detectron2 registers COCO panoptic."""
    annotations = json.loads((root / "gt.json").read_text())["annotations"]
    class_of = {c["id"]: k for k, c in enumerate(CATEGORIES)}

    def dataset_dicts() -> list[dict]:
        return [
            {
                "file_name": f"images/{ann['file_name']}",
                "image_id": ann["image_id"],
                "pan_seg_file_name": str(root / "gt" / ann["file_name"]),
                "segments_info": [
                    {**s, "category_id": class_of[s["category_id"]]} for s in ann["segments_info"]
                ],
            }
            for ann in annotations
        ]

    DatasetCatalog.register(NAME, dataset_dicts)
    names = [c["name"] for c in CATEGORIES]
    MetadataCatalog.get(NAME).set(
        thing_classes=names,
        stuff_classes=names,
        thing_dataset_id_to_contiguous_id=class_maps(1),
        stuff_dataset_id_to_contiguous_id=class_maps(0),
    )


def write_dataset(root: Path, image_ids, classes=range(4), area_factor: float = 1.0) -> None:
    """Random ground truth: 3 × 4 blocks of segments, every third block void, some crowds."""
    rng = np.random.default_rng(0)
    (root / "gt").mkdir()
    annotations = []
    for number, image_id in enumerate(image_ids):
        ids = rng.permutation(12).reshape(3, 4) * (rng.random((3, 4)) < 0.7)
        ids = np.kron(ids * 70_001, np.ones((8, 8), dtype=int))
        segments = [
            {
                "id": int(i),
                "category_id": CATEGORIES[rng.choice(classes)]["id"],
                "iscrowd": int(rng.random() < 0.2),
                "area": int((ids == i).sum() * area_factor),
            }
            for i in np.setdiff1d(ids, 0)
        ]
        name = f"{number}.png"
        write_panoptic_png(ids, root / "gt" / name)
        annotations.append({"image_id": image_id, "file_name": name, "segments_info": segments})
    content = {"annotations": annotations, "categories": CATEGORIES}
    (root / "gt.json").write_text(json.dumps(content))


def predict_image(image: dict) -> dict:
    """The ground truth moved by an image-dependent step, with some classes wrong."""
    rng = np.random.default_rng(len(str(image["image_id"])) + len(image["segments_info"]))
    gt_ids = read_panoptic_png(image["pan_seg_file_name"])
    gt_ids = np.roll(gt_ids, rng.integers(0, 4, size=2), axis=(0, 1))
    class_of = {s["id"]: s["category_id"] for s in image["segments_info"]}
    pred_ids, segments = torch.zeros(SIZE, dtype=torch.int32), []
    for number, gt_id in enumerate(np.setdiff1d(gt_ids, 0).tolist(), start=1):
        pred_ids[torch.from_numpy(gt_ids == gt_id)] = number
        wrong = rng.random() < 0.15
        category = int(rng.choice(list(class_of.values()))) if wrong else class_of[gt_id]
        segments.append({"id": number, "category_id": category, "isthing": True, "score": 0.9})
    return {"panoptic_seg": (pred_ids, segments)}


def run_evaluator(evaluator: PanopticEvaluator, images=None) -> dict:
    images = DatasetCatalog.get(NAME) if images is None else images
    evaluator.reset()
    for image in images:
        evaluator.process([image], [predict_image(image)])
    return evaluator.evaluate()

"""Small scenes on disk, and predictions of them that are not quite right."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from detr_d2.apps.report.run_record import RunOptions, RunRecord
from detr_d2.apps.report.threshold_sweep import RawSweep
from detr_d2.data.categories import PanopticClasses
from detr_d2.data.panoptic_png import read_panoptic_png, write_panoptic_png
from detr_d2.data.register import register_panoptic
from detr_d2.evaluation import MatchedImage, PanopticEvaluator, Segments
from detr_d2.modeling.inference import QuerySelection, select_panoptic_queries
from detr_d2.modeling.inference_options import PanopticOptions

NAME = "scenes"
# Classes count things first, by rising id: cat, dog, grass, sky.
CATEGORIES = [
    {"id": 20, "name": "grass", "isthing": 0},
    {"id": 3, "name": "cat", "isthing": 1},
    {"id": 31, "name": "sky", "isthing": 0},
    {"id": 9, "name": "dog", "isthing": 1},
]
SIZE = (24, 32)


class FakeRaw:
    """Stands for a RawPrediction whose queries never overlap."""

    def __init__(self, ids: np.ndarray, segments_info: list[dict], num_classes: int) -> None:
        self.ids, self.segments_info = torch.from_numpy(ids.astype(np.int32)), segments_info
        scores = [segment["score"] for segment in segments_info]
        rest = (1 - torch.tensor(scores, dtype=torch.float64)) / num_classes
        probabilities = rest[:, None].repeat(1, num_classes + 1)
        classes = torch.tensor([s["category_id"] for s in segments_info], dtype=torch.int64)
        probabilities[torch.arange(len(scores)), classes] = torch.tensor(
            scores, dtype=torch.float64
        )
        self.logits = probabilities.log()

    options = SimpleNamespace(panoptic=PanopticOptions(0.5, "merged", 4))

    def competing(self, score_thresh: float) -> QuerySelection:
        return select_panoptic_queries(self.logits, score_thresh)

    def panoptic(self, options: PanopticOptions):
        assert (options.stuff_merging, options.min_area) == ("merged", 4)  # its own
        kept = [s for s in self.segments_info if s["score"] > options.score_thresh]
        is_kept = torch.isin(self.ids, torch.tensor([s["id"] for s in kept], dtype=torch.int32))
        return torch.where(is_kept, self.ids, 0), kept


@pytest.fixture
def make_scenes(tmp_path: Path, registry: None) -> Callable[..., list[dict]]:
    """Writes a dataset "scenes", registers it and gives its dicts."""

    def make(
        num_images: int = 6,
        categories: list[dict] = CATEGORIES,
        crowds: float = 0.2,
        size: tuple[int, int] = SIZE,
    ) -> list[dict]:
        root = tmp_path / "scenes"
        for folder in ("images", "panoptic"):
            (root / folder).mkdir(parents=True)
        images, annotations = [], []
        for i in range(num_images):
            rng = np.random.default_rng(i)
            ids, segments = random_scene(rng, categories, crowds, size)
            write_panoptic_png(ids, root / "panoptic" / f"{i}.png")
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            write_picture(pixels, root / "images" / f"{i}.png")
            image_id = 100 + i
            height, width = size
            images.append(
                {"id": image_id, "file_name": f"{i}.png", "height": height, "width": width}
            )
            annotations.append(
                {"image_id": image_id, "file_name": f"{i}.png", "segments_info": segments}
            )
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "panoptic.json").write_text(json.dumps(content))
        register_panoptic(NAME, root / "images", root / "panoptic", root / "panoptic.json")
        return DatasetCatalog.get(NAME)

    return make


@pytest.fixture
def predict() -> Callable[..., dict]:
    """A model's output for an image: ``predict(record, categories=4, seed=0)``."""
    return predict_image


@pytest.fixture
def record_run() -> Callable[..., RunRecord]:
    """Records predictions of images as an evaluation with a model would."""

    def record(records: list[dict], outputs: list[dict], score_thresh: float = 0.5) -> RunRecord:
        run = RunRecord(RunOptions("run", score_thresh, True), records, classes_of_scenes())
        for place, output in enumerate(outputs):
            ids, segments = output["panoptic_seg"]
            matched = MatchedImage.of_record(
                records[place], ids.numpy(), segments, len(classes_of_scenes().names)
            )
            run.add(place, matched, RawSweep(output["raw"]))
        return run

    return record


@pytest.fixture
def evaluate_pq() -> Callable[..., dict]:
    """Evaluates outputs of images with PanopticEvaluator."""

    def evaluate(records: list[dict], outputs: list[dict], output_dir: Path | None = None) -> dict:
        evaluator = PanopticEvaluator(
            NAME, output_dir and str(output_dir), save_predictions=output_dir is not None
        )
        evaluator.process(records, outputs)
        return evaluator.evaluate()["panoptic_seg"]

    return evaluate


@pytest.fixture
def scene() -> Callable[[int], tuple]:
    """Makes two id maps with their segments, and the number of classes, from a seed."""

    def make(seed: int) -> tuple[np.ndarray, Segments, np.ndarray, Segments, int]:
        rng = np.random.default_rng(seed)
        gt_ids, gt = random_scene(rng, CATEGORIES, crowds=0.3)
        pred_ids, pred = disturbed(rng, gt_ids, gt, [c["id"] for c in CATEGORIES])
        number = {c["id"]: k for k, c in enumerate(CATEGORIES)}
        return pred_ids, as_segments(pred, number), gt_ids, as_segments(gt, number), 4

    return make


def classes_of_scenes() -> PanopticClasses:
    return PanopticClasses.from_metadata(MetadataCatalog.get(NAME))


def as_segments(segments_info: list[dict], number: dict[int, int]) -> Segments:
    return Segments(
        [s["id"] for s in segments_info],
        [number[s["category_id"]] for s in segments_info],
        [bool(s.get("iscrowd", 0)) for s in segments_info],
    )


def write_picture(pixels: np.ndarray, path: Path) -> None:
    Image.fromarray(pixels).save(path)


def random_scene(
    rng: np.random.Generator,
    categories: list[dict],
    crowds: float,
    size: tuple[int, int] = SIZE,
) -> tuple[np.ndarray, list[dict]]:
    """Overlapping rectangles with void between them; some are crowds, some have no pixel."""
    ids = np.zeros(size, dtype=np.int64)
    segments = []
    for number in range(1, int(rng.integers(2, 8))):
        segment_id = 700 * number
        top, left = rng.integers(size)
        ids[top : top + rng.integers(1, 20), left : left + rng.integers(1, 24)] = segment_id
        category = categories[rng.integers(len(categories))]
        iscrowd = int(category["isthing"] and rng.random() < crowds)
        segments.append({"id": segment_id, "category_id": category["id"], "iscrowd": iscrowd})
    return ids, segments


def disturbed(
    rng: np.random.Generator, gt_ids: np.ndarray, gt: list[dict], classes: list[int]
) -> tuple[np.ndarray, list[dict]]:
    """The ground truth moved a little, with some wrong classes and one more segment."""
    moved = np.roll(gt_ids, rng.integers(0, 3, size=2), axis=(0, 1))
    moved[:3, :5] = 999
    ids = np.zeros(moved.shape, dtype=np.int64)
    segments = []
    class_of = {segment["id"]: segment["category_id"] for segment in gt}
    for number, gt_id in enumerate(np.setdiff1d(moved, 0).tolist(), start=1):
        ids[moved == gt_id] = number
        right = class_of.get(gt_id, classes[0])
        category = right if rng.random() < 0.8 else int(rng.choice(classes))
        segments.append({"id": number, "category_id": category})
    return ids, segments


def predict_image(record: dict, num_classes: int = 4, seed: int = 0, thresh: float = 0.5) -> dict:
    rng = np.random.default_rng([seed, record["image_id"]])
    gt_ids = read_panoptic_png(record["pan_seg_file_name"]).astype(np.int64)
    ids, segments = disturbed(rng, gt_ids, record["segments_info"], list(range(num_classes)))
    things = set(MetadataCatalog.get(NAME).thing_dataset_id_to_contiguous_id.values())
    for segment in segments:
        segment["isthing"] = segment["category_id"] in things
        segment["score"] = float(np.float32(rng.uniform(0.3, 1)))
    raw = FakeRaw(ids, segments, num_classes)
    panoptic = raw.panoptic(replace(raw.options.panoptic, score_thresh=thresh))
    return {"panoptic_seg": panoptic, "raw": raw}

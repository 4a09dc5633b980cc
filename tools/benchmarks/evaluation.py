"""Compares our evaluator with Detectron2's and with hotcoco on the same predictions.

Ours is measured in several processes as well, each of which evaluates its share.

Axes: H×W an image.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import hotcoco.panoptic
import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.evaluation import COCOPanopticEvaluator, DatasetEvaluator
from torch.multiprocessing import start_processes

from benchmarks.benchmark_report import BenchmarkReport
from benchmarks.benchmark_settings import BenchmarkSettings
from benchmarks.inference import measure_times
from benchmarks.scenes import blob_labels
from detr_d2.data.panoptic_dataset import read_panoptic_json, set_panoptic_metadata
from detr_d2.data.panoptic_png import write_panoptic_png
from detr_d2.evaluation import GROUP_SUFFIXES, PanopticEvaluator
from detr_d2.evaluation.saved_predictions import JSON_NAME, PNG_FOLDER

logger = logging.getLogger(__name__)

DATASET = "detr_d2_benchmark_panoptic"
# Numbers of segments in an image, as in the busier images of COCO.
FEWEST_SEGMENTS, MOST_SEGMENTS = 15, 25
# The model's input, as far as evaluators read it, and its ``panoptic_seg``.
Prediction = tuple[dict, tuple[torch.Tensor, list[dict]]]
NUM_PROCESSES = 2
# Figures that all evaluators report.
FIGURES = [figure + end for figure in ("PQ", "SQ", "RQ") for end in GROUP_SUFFIXES.values()]


def run_evaluation(settings: BenchmarkSettings, report: BenchmarkReport) -> None:
    """Writes times and figures of the evaluators into the report's section "evaluation"."""
    found = report.section("evaluation")
    with TemporaryDirectory(prefix="detr_d2_benchmark_") as folder:
        logger.info("Making %d predictions", settings.evaluated_images)
        with made_up_dataset(Path(folder), settings) as predictions:
            evaluators = {
                "ours": PanopticEvaluator(DATASET),
                "detectron2": COCOPanopticEvaluator(DATASET, str(Path(folder) / "detectron2")),
            }
            figures: dict[str, dict[str, float]] = {}
            runs = {
                name: _evaluation(name, evaluator, predictions, figures)
                for name, evaluator in evaluators.items()
            }
            runs[f"ours, {NUM_PROCESSES} processes"] = _evaluation_in_processes(
                Path(folder), predictions, figures
            )
            runs["hotcoco"] = _evaluation_of_files(Path(folder), predictions, figures)
            measure_times(runs, settings, report, found.setdefault("seconds", {}))
    found["figures"] = figures
    found["largest_difference"] = max(
        abs(figures["ours"][figure] - of_other[figure])
        for of_other in figures.values()
        for figure in FIGURES
    )
    logger.info("PQ differs by %g at most", found["largest_difference"])
    report.write()


def _evaluation(
    name: str, evaluator: DatasetEvaluator, predictions: list[Prediction], figures: dict
) -> Callable[[], None]:
    """Returns a whole evaluation, which stores the evaluator's figures under its name."""

    def run() -> None:
        figures[name] = _evaluate(evaluator, predictions)

    return run


def _evaluate(evaluator: DatasetEvaluator, predictions: Iterable[Prediction]) -> dict[str, float]:
    """The figures of these predictions; of those of all processes, on the main one."""
    evaluator.reset()
    for inputs, (ids, segments_info) in predictions:
        # Detectron2's evaluator changes its inputs.
        segments_info = [dict(segment) for segment in segments_info]
        evaluator.process([inputs], [{"panoptic_seg": (ids, segments_info)}])
    results = evaluator.evaluate().get("panoptic_seg", {})
    return {figure: float(results[figure]) for figure in FIGURES if results}


def _evaluation_in_processes(
    folder: Path, predictions: list[Prediction], figures: dict
) -> Callable[[], None]:
    """Returns an evaluation by several processes, which starts them without any import."""

    def run() -> None:
        with TemporaryDirectory(dir=folder) as shared:
            start_processes(
                _evaluate_share, (Path(shared), predictions), NUM_PROCESSES, start_method="fork"
            )
            found = json.loads((Path(shared) / "figures.json").read_text())
        figures[f"ours, {NUM_PROCESSES} processes"] = found

    return run


def _evaluate_share(rank: int, folder: Path, predictions: list[Prediction]) -> None:
    """Evaluates every n-th prediction; the main process writes the figures of all."""
    store = f"file://{folder / 'store'}"
    torch.distributed.init_process_group(
        "gloo", init_method=store, world_size=NUM_PROCESSES, rank=rank
    )
    found = _evaluate(PanopticEvaluator(DATASET), predictions[rank::NUM_PROCESSES])
    if rank == 0:
        (folder / "figures.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def _evaluation_of_files(
    folder: Path, predictions: list[Prediction], figures: dict
) -> Callable[[], None]:
    """Saves the predictions, and returns an evaluation by hotcoco, which reads two folders."""
    saving = PanopticEvaluator(DATASET, str(folder / "saved"), save_predictions=True)
    saving.reset()
    for inputs, (ids, segments_info) in predictions:
        saving.process([inputs], [{"panoptic_seg": (ids, segments_info)}])
    saving.evaluate()

    def run() -> None:
        computed = hotcoco.panoptic.PanopticEval(
            folder / "panoptic.json",
            folder / "saved" / JSON_NAME,
            gt_folder=folder / "panoptic",
            pred_folder=folder / "saved" / PNG_FOLDER,
        )
        computed.evaluate()
        results = computed.results()
        figures["hotcoco"] = {
            figure + end: 100 * results[group][figure.lower()]
            for figure in ("PQ", "SQ", "RQ")
            for group, end in GROUP_SUFFIXES.items()
        }

    return run


@contextmanager
def made_up_dataset(folder: Path, settings: BenchmarkSettings) -> Iterator[list[Prediction]]:
    """Registers a dataset with COCO's categories, and removes it afterwards.

    Yields:
        A prediction for each image.
    """
    rng = np.random.default_rng(settings.seed)
    (folder / "panoptic").mkdir()
    images, annotations, predictions = [], [], []
    for image_id in range(1, settings.evaluated_images + 1):
        num_segments = int(rng.integers(FEWEST_SEGMENTS, MOST_SEGMENTS + 1))
        size = settings.evaluated_size
        truth, predicted = blob_labels(size, num_segments, rng, (0.0, size[0] / 60))
        classes = rng.integers(0, len(COCO_CATEGORIES), num_segments)
        wrong = rng.random(num_segments) < 0.15
        predicted_classes = np.where(wrong, np.roll(classes, 1), classes)

        name = f"{image_id:012d}"
        write_panoptic_png(truth + 1, folder / "panoptic" / f"{name}.png")
        segments = _annotated(truth, classes)
        annotations.append(
            {"image_id": image_id, "file_name": f"{name}.png", "segments_info": segments}
        )
        images.append(
            {"id": image_id, "file_name": f"{name}.jpg", "height": size[0], "width": size[1]}
        )
        inputs = {"image_id": image_id, "file_name": f"{name}.jpg"}
        predictions.append((inputs, _output(predicted, predicted_classes)))

    content = {"images": images, "annotations": annotations, "categories": COCO_CATEGORIES}
    annotation_file = folder / "panoptic.json"
    annotation_file.write_text(json.dumps(content), encoding="utf-8")
    metadata = set_panoptic_metadata(
        DATASET,
        COCO_CATEGORIES,
        panoptic_json=str(annotation_file),
        panoptic_root=str(folder / "panoptic"),
        image_root=str(folder),
    )
    DatasetCatalog.register(
        DATASET,
        lambda: read_panoptic_json(annotation_file, folder, folder / "panoptic", metadata),
    )
    try:
        yield predictions
    finally:
        DatasetCatalog.remove(DATASET)
        MetadataCatalog.remove(DATASET)


def _annotated(labels: np.ndarray, classes: np.ndarray) -> list[dict]:
    """A ground truth's ``segments_info``, with ids from 1 on; ``classes`` index COCO's list."""
    segments = []
    for label, area in zip(*np.unique(labels, return_counts=True), strict=True):
        y, x = np.nonzero(labels == label)
        left, top = int(x.min()), int(y.min())
        segments.append(
            {
                "id": int(label) + 1,
                "category_id": COCO_CATEGORIES[classes[label]]["id"],
                "area": int(area),
                "bbox": [left, top, int(x.max()) - left + 1, int(y.max()) - top + 1],
                "iscrowd": 0,
            }
        )
    return segments


def _output(labels: np.ndarray, classes: np.ndarray) -> tuple[torch.Tensor, list[dict]]:
    """A model's ``panoptic_seg``; ``classes`` index COCO's list, which has things first."""
    segments_info = [
        {
            "id": int(label) + 1,
            "category_id": int(classes[label]),
            "isthing": bool(COCO_CATEGORIES[classes[label]]["isthing"]),
        }
        for label in np.unique(labels)
    ]
    return torch.from_numpy(labels + 1).int(), segments_info

"""AP of made-up boxes by our evaluation, which hotcoco computes, and by pycocotools."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.benchmark_report import BenchmarkReport
from benchmarks.benchmark_settings import BenchmarkSettings
from benchmarks.inference import measure_memory, measure_times
from detr_d2.evaluation.average_precision import average_precision

logger = logging.getLogger(__name__)

NUM_CLASSES = 80
RESULTS_OF_AN_IMAGE = 100


def run_average_precision(settings: BenchmarkSettings, report: BenchmarkReport) -> None:
    """Fills the report's section "average_precision"."""
    found = report.section("average_precision")
    figures: dict[str, np.ndarray] = {}
    runs = {name: prepare_ap(name, settings, figures) for name in EVALUATIONS}
    measure_times(runs, settings, report, found.setdefault("seconds", {}))
    measure_memory(EVALUATIONS, settings, report, found, prepare_ap, settings)
    ours, theirs = figures.values()
    found["note"] = (
        f"{settings.ap_images:,} images with {RESULTS_OF_AN_IMAGE} boxes each. The largest "
        f"difference of all values of precision is {np.abs(ours - theirs).max():g}."
    )
    report.write()


def made_up_results(num_images: int, seed: int) -> tuple[dict, list[dict]]:
    """An instance JSON, and results of which half are near an object of their class."""
    rng = np.random.default_rng(seed)
    images, annotations, results = [], [], []
    for image_id in range(1, num_images + 1):
        images.append({"id": image_id, "height": 480, "width": 640})
        num_objects = int(rng.integers(3, 12))
        sizes = rng.uniform(8, 300, (num_objects, 2))
        corners = rng.uniform(0, 1, (num_objects, 2)) * ([640, 480] - sizes)
        boxes = np.concatenate([corners, sizes], axis=1)
        classes = rng.integers(1, NUM_CLASSES + 1, num_objects)
        for box, class_ in zip(boxes, classes, strict=True):
            annotations.append(
                {
                    **{"id": len(annotations) + 1, "image_id": image_id},
                    **{"category_id": int(class_), "bbox": box.tolist()},
                    **{"area": float(box[2] * box[3]), "iscrowd": 0},
                }
            )
        for query in range(RESULTS_OF_AN_IMAGE):
            near = boxes[query % num_objects] + rng.normal(0, 6, 4)
            near[2:] = near[2:].clip(2)
            right = rng.random() < 0.5
            class_ = classes[query % num_objects] if right else rng.integers(1, NUM_CLASSES + 1)
            results.append(
                {
                    **{"image_id": image_id, "category_id": int(class_)},
                    **{"bbox": near.tolist(), "score": float(rng.random())},
                }
            )
    categories = [{"id": k, "name": str(k)} for k in range(1, NUM_CLASSES + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def by_pycocotools(truth: dict, results: list[dict]) -> np.ndarray:
    """All values of precision."""
    coco = COCO()
    coco.dataset = {**truth, "info": {}}
    coco.createIndex()
    computed = COCOeval(coco, coco.loadRes(results), "bbox")
    computed.evaluate()
    computed.accumulate()
    return computed.eval["precision"]


def by_us(truth: dict, results: list[dict]) -> np.ndarray:
    """All values of precision."""
    return np.asarray(average_precision(truth, results, "bbox").eval["precision"])


EVALUATIONS = {"ours (hotcoco)": by_us, "pycocotools": by_pycocotools}


def prepare_ap(
    name: str, settings: BenchmarkSettings, figures: dict[str, np.ndarray] | None = None
) -> Callable[[], None]:
    """Builds an evaluation by its name. It stores its precision under the name, if asked for."""
    truth, results = made_up_results(settings.ap_images, settings.seed)

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            precision = EVALUATIONS[name](truth, results)
        if figures is not None:
            figures[name] = precision

    return run

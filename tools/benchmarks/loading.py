"""What a training's loader costs: reading and augmenting an image and its panoptic PNG.

Axes: H×W an image.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from benchmarks.benchmark_report import BenchmarkReport
from benchmarks.benchmark_settings import BenchmarkSettings
from benchmarks.dataset_files import SEGMENTS_OF_AN_IMAGE
from benchmarks.inference import measure_times
from benchmarks.scenes import blob_labels
from benchmarks.weights import random_image
from detr_d2 import config_file, load_config
from detr_d2.data.dataset_mapper import DetrDatasetMapper
from detr_d2.data.panoptic_png import write_panoptic_png

logger = logging.getLogger(__name__)

# Configs whose augmentation is measured, by the names in the table.
CONFIGS = {
    "COCO's augmentation": "detr_panoptic.yaml",
    "the quickstart's": "shapes/detr_panoptic.yaml",
}
NUM_IMAGES = 20


def run_loading(settings: BenchmarkSettings, report: BenchmarkReport) -> None:
    """Fills the report's section "loading"."""
    found = report.section("loading")
    with TemporaryDirectory(prefix="detr_d2_benchmark_") as folder:
        records = made_up_records(Path(folder), settings.evaluated_size, settings.seed)
        runs = {name: _mapping(config, records) for name, config in CONFIGS.items()}
        runs["files alone, decoded"] = lambda: [_decode(record) for record in records]
        measure_times(runs, settings, report, found.setdefault("seconds", {}))
    height, width = settings.evaluated_size
    rates = ", ".join(
        f"{name}: {NUM_IMAGES / np.median(times):.0f}" for name, times in found["seconds"].items()
    )
    found["note"] = (
        f"{NUM_IMAGES} images of {height}×{width} in one process. Images per second: {rates}."
    )
    report.write()


def made_up_records(folder: Path, size: tuple[int, int], seed: int) -> list[dict]:
    """Writes images and panoptic PNGs, and returns Detectron2's dicts of them."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    records = []
    for image_id in range(NUM_IMAGES):
        (labels,) = blob_labels(size, SEGMENTS_OF_AN_IMAGE, rng, jitters=(0.0,))
        image, png = folder / f"{image_id}.jpg", folder / f"{image_id}.png"
        Image.fromarray(random_image(size, generator).permute(1, 2, 0).numpy()).save(image)
        write_panoptic_png(labels + 1, png)
        segments = [{"id": int(i) + 1, "category_id": 0, "iscrowd": 0} for i in np.unique(labels)]
        files = {"file_name": str(image), "pan_seg_file_name": str(png), "image_id": image_id}
        records.append({**files, "height": size[0], "width": size[1], "segments_info": segments})
    return records


def _mapping(config: str, records: list[dict]) -> Callable[[], list[dict]]:
    mapper = DetrDatasetMapper(load_config(config_file(config)), is_train=True)
    return lambda: [mapper(record) for record in records]


def _decode(record: dict) -> tuple[np.ndarray, np.ndarray]:
    """Both files of an image, by Pillow, and no more."""
    with Image.open(record["file_name"]) as image, Image.open(record["pan_seg_file_name"]) as png:
        return np.asarray(image), np.asarray(png)

"""How long a dataset's files take: its JSON read, predictions written as PNGs.

Axes: H×W an image.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from detectron2.data import Metadata
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from PIL import Image

from benchmarks.benchmark_report import BenchmarkReport
from benchmarks.benchmark_settings import BenchmarkSettings
from benchmarks.evaluation import MOST_SEGMENTS
from benchmarks.inference import measure_memory, measure_times
from benchmarks.scenes import blob_labels
from detr_d2.data.panoptic_json import class_metadata, read_categories, read_panoptic_json
from detr_d2.data.panoptic_png import MAX_SEGMENT_ID, read_panoptic_png, write_panoptic_png

logger = logging.getLogger(__name__)

# Segments of an image in COCO's training set, in the mean.
SEGMENTS_OF_AN_IMAGE = 11


def run_files(settings: BenchmarkSettings, report: BenchmarkReport) -> None:
    """Fills the report's sections "reading" and "writing"."""
    with TemporaryDirectory(prefix="detr_d2_benchmark_") as folder:
        _run_reading(Path(folder), settings, report)
        _run_writing(Path(folder), settings, report)


def _run_reading(folder: Path, settings: BenchmarkSettings, report: BenchmarkReport) -> None:
    found = report.section("reading")
    path = folder / "panoptic.json"
    logger.info("Making a JSON of %d images", settings.annotated_images)
    made_up_json(path, settings.annotated_images, settings.seed)
    runs = {name: prepare_reader(name, str(path)) for name in READERS}
    measure_times(runs, settings, report, found.setdefault("seconds", {}))
    measure_memory(READERS, settings, report, found, prepare_reader, str(path))
    found["note"] = (
        f"{settings.annotated_images:,} images, {path.stat().st_size / 1e6:.0f} MB. Ours are the "
        "categories, for registering, and Detectron2's dicts of all images, checked."
    )
    report.write()


def made_up_json(path: Path, num_images: int, seed: int) -> None:
    """Writes a panoptic JSON with COCO's fields, categories and numbers of segments."""
    rng = np.random.default_rng(seed)
    category_ids = [category["id"] for category in COCO_CATEGORIES]

    def segment(segment_id: int) -> dict:
        left, top, width, height = rng.integers(1, 320, 4).tolist()
        return {
            "id": segment_id,
            "category_id": category_ids[rng.integers(len(category_ids))],
            "iscrowd": 0,
            "bbox": [left, top, width, height],
            "area": width * height // 2,
        }

    images, annotations = [], []
    for image_id in range(1, num_images + 1):
        name = f"{image_id:012d}"
        size = {"height": 480, "width": 640}
        url = f"http://images.cocodataset.org/train2017/{name}.jpg"
        images.append(
            {"license": 3, "file_name": f"{name}.jpg", "coco_url": url, **size, "id": image_id}
        )
        num_segments = rng.integers(1, 2 * SEGMENTS_OF_AN_IMAGE)
        segment_ids = 1 + rng.choice(MAX_SEGMENT_ID, num_segments, replace=False)
        segments = [segment(segment_id) for segment_id in segment_ids.tolist()]
        annotations.append(
            {"segments_info": segments, "file_name": f"{name}.png", "image_id": image_id}
        )
    content = {"images": images, "annotations": annotations, "categories": COCO_CATEGORIES}
    path.write_text(json.dumps(content), encoding="utf-8")


def read_as_we_do(path: str) -> list[dict]:
    """Reads the classes, and then the images."""
    categories = sorted(read_categories(path), key=lambda c: (not c["isthing"], c["id"]))
    metadata = Metadata(name="benchmark", **class_metadata(categories))
    return read_panoptic_json(path, "images", "panoptic", metadata)


def read_by_json(path: str) -> dict:
    """Parses the file, and no more, by Python's own parser."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def read_by_orjson(path: str) -> dict:
    """Parses the file, and no more, by a fast parser."""
    import orjson

    return orjson.loads(Path(path).read_bytes())


READERS: dict[str, Callable[[str], object]] = {
    "ours, checked": read_as_we_do,
    "json.load": read_by_json,
    "orjson.loads": read_by_orjson,
}


def prepare_reader(name: str, path: str) -> Callable[[], object]:
    """Builds a reader by its name, for measuring memory."""
    return lambda: READERS[name](path)


def _run_writing(folder: Path, settings: BenchmarkSettings, report: BenchmarkReport) -> None:
    found = report.section("writing")
    rng = np.random.default_rng(settings.seed)
    maps = [
        blob_labels(settings.evaluated_size, MOST_SEGMENTS, rng, jitters=(0.0,))[0] + 1
        for _ in range(settings.evaluated_images)
    ]
    writers = {"ours": write_panoptic_png, "Pillow": write_by_pillow}
    paths = {name: [folder / f"{name}_{i}.png" for i in range(len(maps))] for name in writers}

    def write_all(name: str) -> None:
        for ids, path in zip(maps, paths[name], strict=True):
            writers[name](ids, path)

    runs = {name: partial(write_all, name) for name in writers}
    measure_times(runs, settings, report, found.setdefault("seconds", {}))
    for pair in zip(*paths.values(), strict=True):
        ours, theirs = map(read_panoptic_png, pair)
        if not np.array_equal(ours, theirs):
            raise AssertionError(f"{pair}: other pixels")
    sizes = {n: sum(p.stat().st_size for p in of_writer) for n, of_writer in paths.items()}
    found["note"] = (
        f"{len(maps)} id maps of {settings.evaluated_size}; the same pixels; "
        + ", ".join(
            f"{name}: {size / len(maps) / 1000:.1f} kB each" for name, size in sizes.items()
        )
    )
    report.write()


def write_by_pillow(ids: np.ndarray, path: Path) -> None:
    """Writes ids as colours with Pillow's encoder and its defaults."""
    colors = np.ascontiguousarray(ids, "<u4").view(np.uint8).reshape(*ids.shape, 4)[:, :, :3]
    Image.fromarray(colors).save(path, "PNG")

"""Made-up annotations, and a reader of the datasets that are made of them."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from panopticapi.evaluation import pq_compute_single_core
from PIL import Image

from detr_d2.data.panoptic_dataset import (
    load_panoptic_dataset,
    read_panoptic_json,
    set_panoptic_metadata,
)
from detr_d2.data.panoptic_png import read_panoptic_png

# Two things, two kinds of stuff.
CATEGORIES = [
    {"id": 1, "name": "cat", "isthing": 1, "color": [200, 10, 20]},
    {"id": 2, "name": "dog", "isthing": 1, "color": [0, 0, 0]},
    {"id": 7, "name": "sky", "isthing": 0, "color": [70, 130, 180]},
    {"id": 9, "name": "grass", "isthing": 0},
]


@pytest.fixture
def categories() -> list[dict]:
    return [dict(category) for category in CATEGORIES]


@pytest.fixture
def write_json(tmp_path: Path) -> Callable[[str, Any], Path]:
    def write(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture
def write_png(tmp_path: Path) -> Callable[..., Path]:
    """Writes pixels as they are; the type tells how many bits each has."""

    def write(name: str, values: Any, dtype: type = np.uint8) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(values, dtype)).save(path)
        return path

    return write


@pytest.fixture
def read_back(registry: None) -> Callable[[Path], dict[str, list[tuple[int, int, list]]]]:
    """Reads a dataset as training would, checks it against its own PNGs, and scores it.

    Returns, for each image, its segments in order: category id, iscrowd and the H×W mask as lists.
    """

    def read(output: Path) -> dict[str, list[tuple[int, int, list]]]:
        content = json.loads((output / "panoptic.json").read_text())
        name = f"prepared_{output}"
        files = output / "panoptic.json", "images", output / "panoptic"
        metadata = set_panoptic_metadata(name, content["categories"])
        DatasetCatalog.register(name, lambda: read_panoptic_json(*files, metadata))
        dicts, classes = load_panoptic_dataset(name)
        segments_of = {}
        for record in dicts:
            ids = read_panoptic_png(record["pan_seg_file_name"])
            assert ids.shape == (record["height"], record["width"])
            segments = record["segments_info"]
            assert sorted({0, *ids.ravel()} - {0}) == sorted(segment["id"] for segment in segments)
            for segment in segments:
                mask = ids == segment["id"]
                rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
                left, top = columns[0], rows[0]
                box = [left, top, columns[-1] - left + 1, rows[-1] - top + 1]
                assert (segment["area"], segment["bbox"]) == (mask.sum(), box)
            file_name = Path(record["file_name"]).relative_to("images").as_posix()
            segments_of[file_name] = [
                (
                    classes.dataset_ids[segment["category_id"]],
                    segment["iscrowd"],
                    (ids == segment["id"]).astype(int).tolist(),
                )
                for segment in segments
            ]
        assert len(segments_of) == len(content["images"])
        pngs = {p.relative_to(output / "panoptic").as_posix() for p in output.rglob("*.png")}
        assert pngs == {annotation["file_name"] for annotation in content["annotations"]}
        _check_quality(content, output)
        return segments_of

    return read


def _check_quality(content: dict, output: Path) -> None:
    """panopticapi finds a dataset to be equal to itself."""
    known = {category["id"]: category for category in content["categories"]}
    folder = str(output / "panoptic")
    pairs = [(annotation, annotation) for annotation in content["annotations"]]
    with contextlib.redirect_stdout(io.StringIO()):
        quality = pq_compute_single_core(0, pairs, folder, folder, known)
    counted = [s for a in content["annotations"] for s in a["segments_info"] if not s["iscrowd"]]
    assert sum(quality[category_id].tp for category_id in known) == len(counted)
    if counted:
        assert quality.pq_average(known, None)[0]["pq"] == 1

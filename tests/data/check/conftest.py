"""A small dataset without faults, on which tests plant some, and how many were found."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from detr_d2.data.panoptic_png import write_panoptic_png

if TYPE_CHECKING:
    from detr_d2.data.check import CheckReport

# Images of the dataset, and their size.
NUM_IMAGES, HEIGHT, WIDTH = 3, 12, 16


@dataclass
class Dataset:
    """Files in a folder, and the JSON's content, which ``check`` writes first."""

    folder: Path
    content: dict

    def image(self, number: int) -> Path:
        return self.folder / "images" / self.content["images"][number]["file_name"]

    def png(self, number: int) -> Path:
        return self.folder / "panoptic" / self.content["annotations"][number]["file_name"]

    def segments(self, number: int) -> list[dict]:
        return self.content["annotations"][number]["segments_info"]

    @property
    def paths(self) -> tuple[str, str, str]:
        """Folders of images and PNGs, and the JSON."""
        return tuple(str(self.folder / name) for name in ("images", "panoptic", "panoptic.json"))

    def write(self) -> None:
        (self.folder / "panoptic.json").write_text(json.dumps(self.content))

    def check(self, **options: object) -> CheckReport:
        from detr_d2.data.check import check_dataset

        self.write()
        return check_dataset(*self.paths, **options)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Each image has a thing of ten pixels, a crowd, stuff and a strip of void."""
    (tmp_path / "images").mkdir()
    (tmp_path / "panoptic").mkdir()
    ids = np.full((HEIGHT, WIDTH), 70_000)
    ids[:2] = 0
    ids[4:6, 3:8] = 1
    ids[8:, 10:] = 300
    segments = [
        {"id": 1, "category_id": 5, "area": 10, "bbox": [3, 4, 5, 2], "iscrowd": 0},
        {"id": 300, "category_id": 7, "area": 24, "bbox": [10, 8, 6, 4], "iscrowd": 1},
        {"id": 70_000, "category_id": 9, "area": 126, "bbox": [0, 2, 16, 10], "iscrowd": 0},
        {"id": 4, "category_id": 7, "area": 8, "bbox": [0, 11, 8, 1], "iscrowd": 0},
    ]
    ids[11, :8] = 4
    segments[2]["area"] = int((ids == 70_000).sum())
    names = [f"{number}.png" for number in range(NUM_IMAGES)]
    for name in names:
        Image.new("RGB", (WIDTH, HEIGHT), (9, 99, 199)).save(tmp_path / "images" / name)
        write_panoptic_png(ids, tmp_path / "panoptic" / name)
    content = {
        "images": [
            {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for number, name in enumerate(names)
        ],
        "annotations": [
            {"image_id": number, "file_name": name, "segments_info": copy.deepcopy(segments)}
            for number, name in enumerate(names)
        ],
        "categories": [
            {"id": 5, "name": "cat", "isthing": 1, "color": [200, 0, 0]},
            {"id": 7, "name": "dog", "isthing": True, "color": [0, 200, 0]},
            {"id": 9, "name": "sky", "isthing": 0, "color": [0, 0, 200]},
        ],
    }
    return Dataset(tmp_path, content)


@pytest.fixture
def planted(record_figure: Callable[..., None]) -> Callable[[bool], None]:
    """Counts for the end of the run how many planted faults were found: this test's, for one."""
    record_figure("faults planted, one at a time", 1, "{}", "sum")

    def note(found: bool) -> None:
        record_figure("faults found", int(found), "{}", "sum")
        assert found

    return note

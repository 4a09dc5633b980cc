"""What the tests of both kinds of annotation share."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.data import transforms as T

from detr_d2.data.panoptic_json import read_panoptic_json, set_panoptic_metadata

CATEGORIES = [
    {"id": 40, "name": "grass", "isthing": 0, "color": [1, 2, 3]},
    {"id": 9, "name": "cat", "isthing": 1, "color": [4, 5, 6]},
    {"id": 3, "name": "sky", "isthing": 0, "color": [7, 8, 9]},
    {"id": 70, "name": "dog", "isthing": 1, "color": [10, 11, 12]},
]
# Of an image with a crowd of cats on grass.
PANOPTIC = {
    "images": [{"id": "b", "file_name": "b.png", "height": 4, "width": 6}],
    "annotations": [
        {
            "image_id": "b",
            "file_name": "b_pan.png",
            "segments_info": [
                {"id": 5, "category_id": 9, "area": 3, "bbox": [0, 0, 1, 1], "iscrowd": 1},
                {"id": 6, "category_id": 40, "area": 4, "bbox": [0, 0, 2, 2], "iscrowd": 0},
            ],
        }
    ],
    "categories": CATEGORIES,
}


@pytest.fixture
def categories() -> list[dict]:
    """Things and stuff, in no order, with gaps between their ids."""
    return copy.deepcopy(CATEGORIES)


@pytest.fixture(scope="session")
def content() -> Callable[..., dict]:
    """Makes the content of a panoptic JSON of one image; its lists can be replaced by name."""
    return lambda **changes: {**copy.deepcopy(PANOPTIC), **changes}


@pytest.fixture(scope="session")
def write() -> Callable[[Path, object], Path]:
    """Writes ``(folder, content)`` as ``panoptic.json``."""

    def write(folder: Path, json_content: object) -> Path:
        path = folder / "panoptic.json"
        path.write_text(json.dumps(json_content))
        return path

    return write


@pytest.fixture
def read(
    tmp_path: Path, categories: list[dict], write: Callable[[Path, object], Path]
) -> Callable[[str, dict], list[dict]]:
    """Reads the content of a panoptic JSON into the dicts of a dataset of that name."""

    def read(name: str, json_content: dict) -> list[dict]:
        metadata = set_panoptic_metadata(name, categories)
        path = write(tmp_path, json_content)
        return read_panoptic_json(path, tmp_path / "images", tmp_path / "pngs", metadata)

    return read


@pytest.fixture(
    params=[
        [T.RandomFlip(1.0)],
        [T.RandomFlip(1.0, horizontal=False, vertical=True)],
        [T.FixedSizeCrop((23, 31), pad=False)],
        [T.RandomFlip(0.5), T.RandomCrop("absolute_range", (7, 25)), T.RandomFlip(0.5)],
    ],
    ids=["horizontal", "vertical", "crop", "all"],
)
def augmentations(request: pytest.FixtureRequest) -> list[T.Augmentation]:
    """Augmentations that move pixels without mixing them."""
    return request.param

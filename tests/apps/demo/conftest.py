"""Models and files to predict on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import Metadata

from detr_d2.apps.demo import Demo, DemoOptions


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with a colour image, a grey one in a sub-folder, a truncated one and a text."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "a.jpg"), pixels)
    cv2.imwrite(str(folder / "sub" / "a.png"), pixels[..., 0])
    (folder / "broken.jpg").write_bytes((folder / "a.jpg").read_bytes()[:200])
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """Writes MJPG videos of a square that moves: ``make_video(name, num_frames, size)``."""

    def make(name: str = "clip.avi", num_frames: int = 30, size: tuple[int, int] = (480, 64)):
        path = tmp_path / name
        fourcc = cv2.VideoWriter_fourcc(*"MJPG")
        writer = cv2.VideoWriter(str(path), fourcc, 10.0, size)
        for place in range(num_frames):
            frame = np.full((size[1], size[0], 3), 90, np.uint8)
            frame[8:-8, place % 400 : place % 400 + 40] = (0, 200, 250)
            writer.write(frame)
        writer.release()
        return path

    return make


@pytest.fixture
def read_video() -> Callable[[Path], list[np.ndarray]]:
    """All frames of a video."""

    def read(path: Path) -> list[np.ndarray]:
        capture = cv2.VideoCapture(str(path))
        frames = []
        while (frame := capture.read()[1]) is not None:
            frames.append(frame)
        capture.release()
        return frames

    return read


class SquareFinder:
    """Stands for a predictor: sees the square of ``make_video`` and what is around it.

    It gives the two ids in turns, as queries do that nothing keeps in order.
    """

    def __init__(self, on_batch: Callable[[int], None]) -> None:
        self.num_frames = 0
        self._on_batch = on_batch

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[dict]:
        self._on_batch(self.num_frames)
        return [self._predict(image) for image in images]

    def _predict(self, image: np.ndarray) -> dict:
        square, around = (1, 2) if self.num_frames % 2 else (2, 1)
        self.num_frames += 1
        ids = np.where(image[:, :, 2] > 170, square, around).astype(np.int32)
        infos = [
            {"id": square, "category_id": 0, "isthing": True, "score": 0.9},
            {"id": around, "category_id": 1, "isthing": False, "score": 0.8},
        ]
        infos.sort(key=lambda info: info["id"])
        return {"panoptic_seg": (torch.from_numpy(ids), infos)}


@pytest.fixture
def metadata() -> Metadata:
    """Of a dataset with a thing and a stuff class."""
    return Metadata(
        name="squares",
        thing_classes=["square", "ground"],
        stuff_classes=["square", "ground"],
        thing_colors=[[250, 200, 0], [0, 0, 90]],
        stuff_colors=[[250, 200, 0], [0, 0, 90]],
        thing_dataset_id_to_contiguous_id={5: 0},
        stuff_dataset_id_to_contiguous_id={9: 1},
    )


@pytest.fixture
def make_demo(tmp_path: Path, metadata: Metadata) -> Iterator[Callable[..., Demo]]:
    """Makes demos of a cheap predictor: ``make_demo(on_batch, output_dir, **options)``.

    ``on_batch`` is told how many frames were before a batch. They write to ``tmp_path / "out"``.
    """

    def make(on_batch: Callable[[int], None] = lambda place: None, **options: object) -> Demo:
        finder = SquareFinder(on_batch)
        return Demo(finder, metadata, tmp_path / "out", DemoOptions(**options))

    return make

"""Images on the disk in, pictures and COCO's panoptic JSON and PNGs out.

Axes: H×W pixels.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from detr_d2.data.image_file import read_image
from detr_d2.data.input_files import distinct_names, find_images
from detr_d2.data.panoptic_png import write_panoptic_png
from detr_d2.data.picture_file import write_picture
from detr_d2.deploy.drawing import draw_panoptic
from detr_d2.deploy.model_info import ModelClass, ModelError
from detr_d2.deploy.onnx_predictor import OnnxPredictor
from detr_d2.file_io import write_json_atomically

# The folder of segment ids in colours, below that of the pictures.
PREDICTIONS = "predictions"


def predict_files(
    predictor: OnnxPredictor, inputs: Sequence[str], output_dir: str | Path, *, save_panoptic: bool
) -> int:
    """Draws a picture of each image, under its name.

    Images that can't be read, or that the model fails on, are named on the standard error, and the
    others are predicted. If something ends the run, all that was done is kept, with its JSON.

    Args:
        predictor: for images in RGB.
        inputs: files, folders with all images below them, or globs.
        output_dir: the folder of ``<name>.png`` for each image. Equal names are numbered.
        save_panoptic: also write ``predictions/<name>.png``, segment ids in colours, and
            ``predictions.json``, as COCO's panoptic format has them.

    Returns:
        How many images failed.

    Raises:
        FileNotFoundError: a folder or glob holds no image.
        ModelError: the model's output contradicts its metadata.
        OSError: a file can't be written.
        ValueError: a picture would replace an input image.
    """
    paths, folder = find_images(inputs), Path(output_dir)
    outputs = [folder / f"{name}.png" for name in distinct_names(paths)]
    _check_apart(paths, outputs)
    if save_panoptic:
        _check_apart(paths, [folder / PREDICTIONS / output.name for output in outputs])
    folder.mkdir(parents=True, exist_ok=True)
    saved = PredictionWriter(folder, predictor.info.classes) if save_panoptic else None
    failed = 0
    try:
        for path, output in with_progress(list(zip(paths, outputs, strict=True))):
            try:
                image = read_image(path, "RGB", predictor.info.image_options)
                ids, segments_info = _predict(predictor, image, path)
            except ModelError:
                raise
            except (OSError, ValueError) as error:
                failed += 1
                print(f"{_clear_line()}error: {error}", file=sys.stderr)
                continue
            if saved:
                saved.add(output.name, path, ids, segments_info)
            picture = draw_panoptic(image, ids, segments_info, predictor.info.classes)
            write_picture(picture, output)
    finally:
        if saved:
            saved.write()
    return failed


class PredictionWriter:
    """Predictions as COCO's panoptic format has them: a JSON, and a PNG of each image."""

    def __init__(self, folder: Path, classes: Sequence[ModelClass]) -> None:
        """Takes the folder, which exists, and the model's classes."""
        self._folder, self._classes = folder, classes
        self._images: list[dict] = []
        self._annotations: list[dict] = []
        (folder / PREDICTIONS).mkdir(exist_ok=True)

    def add(self, name: str, path: Path, ids: np.ndarray, segments_info: list[dict]) -> None:
        """Writes the PNG of an image.

        Args:
            name: of the PNG.
            path: of the image.
            ids, segments_info: what the predictor makes of it.

        Raises:
            OSError: it can't be written.
        """
        image_id = len(self._images) + 1
        write_panoptic_png(ids, self._folder / PREDICTIONS / name)
        self._images.append(
            {
                "id": image_id,
                "file_name": path.name,
                "height": ids.shape[0],
                "width": ids.shape[1],
            }
        )
        segments = [
            {
                "id": segment["id"],
                "category_id": self._classes[segment["category_id"]].id,
                "area": segment["area"],
                "score": segment["score"],
            }
            for segment in segments_info
        ]
        annotation = {"image_id": image_id, "file_name": name, "segments_info": segments}
        self._annotations.append(annotation)

    def write(self) -> None:
        """Writes ``predictions.json`` of what was added.

        Raises:
            OSError: it can't be written.
        """
        categories = [
            {"id": c.id, "name": c.name, "isthing": int(c.isthing), "color": list(c.color)}
            for c in self._classes
        ]
        write_json_atomically(
            {"images": self._images, "annotations": self._annotations, "categories": categories},
            self._folder / "predictions.json",
        )


def _predict(
    predictor: OnnxPredictor, image: np.ndarray, path: Path
) -> tuple[np.ndarray, list[dict]]:
    """Predicts on an image. Errors name the file."""
    try:
        return predictor(image)["panoptic_seg"]
    except ModelError:
        raise
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_apart(paths: Sequence[Path], outputs: Sequence[Path]) -> None:
    images = {path.resolve() for path in paths}
    clash = next((output for output in outputs if output.resolve() in images), None)
    if clash is not None:
        raise ValueError(
            f"{clash} is one of the images, and its picture would replace it. Name another folder."
        )


def with_progress(items: list[tuple]) -> Iterator[tuple]:
    """Goes through items that begin with a path, and counts them on a terminal."""
    clear = _clear_line()
    for number, item in enumerate(items, start=1):
        if clear:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
            line = f"{number}/{len(items)} {item[0]}"[: max(columns - 1, 0)]
            print(f"{clear}{line}", end="", file=sys.stderr, flush=True)
        yield item
    print(clear, end="", file=sys.stderr, flush=True)


def _clear_line() -> str:
    """Returns what removes the count from a terminal's line; nothing if there is no terminal."""
    return "\r\033[K" if sys.stderr.isatty() else ""

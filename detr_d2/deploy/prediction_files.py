"""Predicts on image files, and writes pictures and COCO's panoptic JSON and PNGs.

Axes: H×W pixels.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np

from detr_d2.data.image_file import read_image
from detr_d2.data.input_files import distinct_names, find_images
from detr_d2.data.picture_file import write_picture
from detr_d2.deploy.drawing import draw_panoptic
from detr_d2.deploy.model_info import ModelError
from detr_d2.deploy.onnx_predictor import OnnxPredictor
from detr_d2.evaluation.saved_predictions import PNG_FOLDER, PredictionWriter, image_id_of


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
        save_panoptic: also write ``predictions/<name>.png`` and ``predictions.json``, see
            ``saved_predictions``. The id of an image is its name, see ``image_id_of``.

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
        _check_apart(paths, [folder / PNG_FOLDER / output.name for output in outputs])
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    with ExitStack() as stack:
        saved = None
        if save_panoptic:
            categories = map(asdict, predictor.info.classes)
            saved = stack.enter_context(PredictionWriter(folder, categories))
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
                saved.add(output.name, image_id_of(output.stem), ids, segments_info)
            picture = draw_panoptic(image, ids, segments_info, predictor.info.classes)
            write_picture(picture, output)
    return failed


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

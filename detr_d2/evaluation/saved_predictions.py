"""Predictions as files, in COCO's panoptic result format: one JSON, and a PNG for each image.

The JSON has ``categories`` (``id``, ``name``, ``isthing``, ``color``) and ``annotations``, one for
each image: ``image_id``, ``file_name`` of the PNG and ``segments_info``, a list of ``id``,
``category_id``, ``area`` in pixels and, if the model gives one, ``score``.

Axes: H×W pixels of an image, K classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from detr_d2.data.panoptic_png import write_panoptic_png
from detr_d2.evaluation.run_lengths import count_pixels
from detr_d2.file_io import write_json_atomically

# The names of the JSON and of the folder of PNGs; both are in the same folder.
JSON_NAME = "predictions.json"
PNG_FOLDER = "predictions"


def save_prediction(
    output_dir: Path,
    file_name: str,
    image_id: Any,
    ids: np.ndarray,
    segments_info: Sequence[dict[str, Any]],
    categories: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Writes the PNG of one prediction.

    Args:
        output_dir: the folder that has a ``PNG_FOLDER``.
        file_name: of the PNG, in ``PNG_FOLDER``.
        image_id: of the image.
        ids: (H, W) integers, 0 for void.
        segments_info: a dict for each id, with contiguous ``category_id`` and perhaps ``score``.
        categories: K of COCO's dicts, in the order of contiguous ids.

    Returns:
        The image's entry in ``annotations``.

    Raises:
        OSError: the PNG can't be written.
        ValueError: an id doesn't fit a PNG.
    """
    write_panoptic_png(ids, output_dir / PNG_FOLDER / file_name)
    areas = count_pixels(ids)
    segments = [
        {
            "id": int(segment["id"]),
            "category_id": categories[segment["category_id"]]["id"],
            "area": areas.get(int(segment["id"]), 0),
            **({"score": float(segment["score"])} if "score" in segment else {}),
        }
        for segment in segments_info
    ]
    return {"image_id": image_id, "file_name": file_name, "segments_info": segments}


def write_predictions_json(
    output_dir: Path,
    annotations: Iterable[dict[str, Any]],
    categories: Iterable[dict[str, Any]],
) -> Path:
    """Writes the whole JSON at once, when all PNGs are there. Returns its path.

    Raises:
        OSError: the JSON can't be written.
    """
    path = output_dir / JSON_NAME
    content = {"categories": _for_json(categories), "annotations": list(annotations)}
    write_json_atomically(content, path)
    return path


def image_id_of(name: str) -> int | str:
    """The id of an image that has no annotation: its name without the suffix.

    The names of COCO's images, 12 digits, are their ids as numbers.
    """
    return int(name) if re.fullmatch("[0-9]{12}", name) else name


class PredictionWriter:
    """Writes predictions one by one. None of them stays in memory.

    The JSON is complete and valid after each prediction, so an interrupted or killed process leaves
    a file that can be read.
    """

    def __init__(self, output_dir: Path, categories: Iterable[dict[str, Any]]) -> None:
        """Starts a new JSON.

        Args:
            output_dir: the folder of the JSON and of ``PNG_FOLDER``; it is made if it is missing.
            categories: K of COCO's dicts, in the order of contiguous ids.

        Raises:
            OSError: the JSON can't be written.
        """
        self._output_dir = output_dir
        self._categories = _for_json(categories)
        (output_dir / PNG_FOLDER).mkdir(parents=True, exist_ok=True)
        self.path = output_dir / JSON_NAME
        self._file: IO[bytes] = open(self.path, "wb", buffering=0)
        self._end = 0  # where the closing brackets begin
        self._separator = ""
        self._append(f'{{"categories": {json.dumps(self._categories)}, "annotations": [')

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(
        self,
        file_name: str,
        image_id: Any,
        ids: np.ndarray,
        segments_info: Sequence[dict[str, Any]],
    ) -> None:
        """Writes one prediction; see ``save_prediction``.

        Args:
            file_name: of the PNG; folders in this name are made.
            image_id: of the image.
            ids: (H, W) integers, 0 for void.
            segments_info: a dict for each id.

        Raises:
            OSError: the prediction can't be written. The JSON stays valid, without it.
            ValueError: an id doesn't fit a PNG.
        """
        (self._output_dir / PNG_FOLDER / file_name).parent.mkdir(parents=True, exist_ok=True)
        annotation = save_prediction(
            self._output_dir, file_name, image_id, ids, segments_info, self._categories
        )
        self._append(f"{self._separator}\n{json.dumps(annotation)}")
        self._separator = ","

    def _append(self, text: str) -> None:
        """Replaces the closing brackets by the text and new closing brackets, in one write."""
        content, closing = text.encode(), b"\n]}\n"
        try:
            self._write_at_end(content + closing)
        except OSError:
            self._file.truncate(self._end)
            self._write_at_end(closing)
            raise
        self._end += len(content)

    def _write_at_end(self, content: bytes) -> None:
        self._file.seek(self._end)
        while content:
            content = content[self._file.write(content) :]


def _for_json(categories: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**category, "isthing": int(category["isthing"])} for category in categories]

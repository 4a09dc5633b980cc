"""Predictions as files: COCO's panoptic result format, a JSON and a PNG for each image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from detr_d2.data.categories import PanopticClasses
from detr_d2.data.panoptic_png import write_panoptic_png
from detr_d2.file_io import write_json_atomically

# Below the folder of the output.
JSON_NAME = "predictions.json"
PNG_FOLDER = "predictions"


def save_prediction(
    output_dir: Path,
    file_name: str,
    image_id: Any,
    ids: np.ndarray,
    segments_info: Sequence[dict],
    classes: PanopticClasses,
) -> dict[str, Any]:
    """Writes the PNG of one prediction.

    Args:
        output_dir: where ``PNG_FOLDER`` is.
        file_name: of the PNG, in that folder.
        image_id: of the image.
        ids: H×W integers, 0 for void.
        segments_info: a dict for each id, with contiguous ``category_id`` and maybe ``score``.
        classes: of the dataset.

    Returns:
        The image's entry in COCO's ``annotations``, with the dataset's category ids.

    Raises:
        OSError: it can't be written.
        ValueError: an id doesn't fit a PNG.
    """
    write_panoptic_png(ids, output_dir / PNG_FOLDER / file_name)
    segments = [
        {
            "id": int(segment["id"]),
            "category_id": classes.dataset_ids[segment["category_id"]],
            "area": int((ids == segment["id"]).sum()),
            **({"score": float(segment["score"])} if "score" in segment else {}),
        }
        for segment in segments_info
    ]
    return {"image_id": image_id, "file_name": file_name, "segments_info": segments}


def write_predictions_json(
    output_dir: Path, annotations: Sequence[dict[str, Any]], classes: PanopticClasses
) -> Path:
    """Writes the JSON of predictions whose PNGs are there, as a whole; returns its path.

    Raises:
        OSError: it can't be written.
    """
    path = output_dir / JSON_NAME
    content = {"annotations": list(annotations), "categories": category_dicts(classes)}
    write_json_atomically(content, path)
    return path


def category_dicts(classes: PanopticClasses) -> list[dict[str, Any]]:
    """COCO's ``categories``."""
    return [
        {"id": dataset_id, "name": name, "isthing": int(is_thing)}
        for dataset_id, name, is_thing in zip(
            classes.dataset_ids, classes.names, classes.is_thing, strict=True
        )
    ]


class PredictionStream:
    """Writes predictions one by one, however many: none of them is kept in memory.

    The JSON is valid after each, whenever the process ends.
    """

    def __init__(self, output_dir: Path, classes: PanopticClasses) -> None:
        """Begins a new JSON.

        Raises:
            OSError: it can't be written.
        """
        self._output_dir = output_dir
        self._classes = classes
        (output_dir / PNG_FOLDER).mkdir(parents=True, exist_ok=True)
        self.path = output_dir / JSON_NAME
        head = f'{{"categories": {json.dumps(category_dicts(classes))}, "annotations": ['
        self._tail = "\n]}\n"
        self._file: IO[bytes] = open(self.path, "wb", buffering=0)
        self._end = 0  # where the tail begins
        self._separator = ""
        self._append(head)

    def __enter__(self) -> PredictionStream:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(
        self, file_name: str, image_id: Any, ids: np.ndarray, segments_info: Sequence[dict]
    ) -> None:
        """Writes one prediction; see ``save_prediction``.

        Args:
            file_name: of the PNG; folders in it are made.
            image_id: of the image.
            ids: H×W integers, 0 for void.
            segments_info: a dict for each id.

        Raises:
            OSError: it can't be written; what was written before is still valid.
        """
        (self._output_dir / PNG_FOLDER / file_name).parent.mkdir(parents=True, exist_ok=True)
        annotation = save_prediction(
            self._output_dir, file_name, image_id, ids, segments_info, self._classes
        )
        self._append(f"{self._separator}\n{json.dumps(annotation)}")
        self._separator = ","

    def _append(self, text: str) -> None:
        """Puts text in place of the tail, and the tail behind it, in one go."""
        content = text.encode()
        try:
            self._write_at_end(content + self._tail.encode())
        except OSError:
            self._file.truncate(self._end)
            self._write_at_end(self._tail.encode())
            raise
        self._end += len(content)

    def _write_at_end(self, content: bytes) -> None:
        self._file.seek(self._end)
        while content:
            content = content[self._file.write(content) :]

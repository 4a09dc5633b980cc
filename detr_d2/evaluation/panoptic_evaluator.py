"""Panoptic quality of a model on a registered panoptic dataset, computed while the model runs.

Each image goes one way: the model's output, its segments, their matching with the ground truth, and
the stats of the image, which are added to those of the dataset.

Axes: H×W pixels of an image, K classes.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, OrderedDict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from detr_d2.data.panoptic_dataset import load_panoptic_dataset
from detr_d2.evaluation.ground_truth import GroundTruth, MatchedImage
from detr_d2.evaluation.panoptic_output import read_panoptic_output
from detr_d2.evaluation.panoptic_quality import PanopticStats
from detr_d2.evaluation.panoptic_results import log_panoptic_quality, panoptic_figures
from detr_d2.evaluation.saved_predictions import (
    PNG_FOLDER,
    save_prediction,
    write_predictions_json,
)

logger = logging.getLogger(__name__)


class PanopticEvaluator(DatasetEvaluator):
    """Computes PQ, SQ and RQ, image by image.

    Each prediction is compared with its ground truth at once, so memory does not grow with the
    dataset and no temporary file is written. The dataset decides whether a class is a thing;
    ``isthing`` of a predicted segment is not used. Figures depend neither on the order of images
    nor on the number of processes.

    Attributes:
        matched: the images of the last call of ``process``, by image id, for evaluators that want
            to know more of them.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | None = None,
        *,
        save_predictions: bool = False,
        dataset_dicts: list[dict[str, Any]] | None = None,
    ) -> None:
        """
        Args:
            dataset_name: a registered panoptic dataset with one numbering of things and stuff.
            output_dir: the folder of saved predictions; otherwise it is not used.
            save_predictions: write ``predictions/*.png`` and, in evaluate, ``predictions.json`` in
                COCO's panoptic result format, with the dataset's category ids. The name of a PNG
                consists of the image's place in the dataset and its id.
            dataset_dicts: the dataset's dicts, if they have been read already.

        Raises:
            KeyError: no dataset is registered under that name.
            ValueError: the dataset has no panoptic annotation, its classes can't be resolved, two
                images share an id, or there is no output_dir to save predictions in.
        """
        records, self._classes = load_panoptic_dataset(dataset_name, dataset_dicts)
        self._categories = self._classes.categories()
        self._dataset_name = dataset_name
        self._records = {record["image_id"]: record for record in records}
        self._place = {image_id: place for place, image_id in enumerate(self._records)}
        if len(self._records) < len(records):
            shared = _repeated(record["image_id"] for record in records)
            raise ValueError(f"dataset {dataset_name!r}: several images have the id {shared}")
        if save_predictions and not output_dir:
            raise ValueError("save_predictions needs an output_dir")
        self._save_dir = Path(output_dir) if save_predictions and output_dir else None
        if self._save_dir is not None:
            (self._save_dir / PNG_FOLDER).mkdir(parents=True, exist_ok=True)
        self.reset()

    def reset(self) -> None:
        """Starts a new evaluation, without any image."""
        self._stats = PanopticStats.zeros(len(self._classes.names))
        self.matched: dict[Any, MatchedImage] = {}
        self._evaluated: list[Any] = []
        self._saved: list[dict[str, Any]] = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Compares predictions with the ground truth of their images.

        Args:
            inputs: dicts with ``image_id``.
            outputs: see ``read_panoptic_output``. They are not changed.

        Raises:
            ValueError: a prediction or the ground truth of an image is invalid; the message names
                the image. See ``match_segments``.
            FileNotFoundError: the PNG of the ground truth is missing.
        """
        self.matched = {}
        for image, output in zip(inputs, outputs, strict=True):
            image_id = image["image_id"]
            if image_id not in self._records:
                raise ValueError(f"image {image_id!r} is not in dataset {self._dataset_name!r}")
            truth = GroundTruth.of_record(self._records[image_id])
            with truth.naming_image():
                ids, segments_info = read_panoptic_output(output)
                matched = MatchedImage.of(truth, ids, segments_info, len(self._classes.names))
                if self._save_dir is not None:
                    self._save(self._save_dir, image_id, ids, segments_info)
            self.matched[image_id] = matched
            self._stats += PanopticStats.of_matching(matched.matching)
            self._evaluated.append(image_id)

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """Adds up the images of all processes. All processes have to call it.

        Returns:
            On the main process, ``{"panoptic_seg": figures}``; see ``panoptic_figures``. The dict
            is empty on other processes, and where there is no image.

        Raises:
            ValueError: an image was evaluated twice, by one or several processes.
        """
        comm.synchronize()
        gathered = comm.gather((self._stats, self._evaluated, self._saved))
        if not comm.is_main_process():
            return OrderedDict()
        all_stats, evaluated, saved = zip(*gathered, strict=True)
        stats = sum(all_stats, PanopticStats.zeros(len(self._classes.names)))
        num_images = sum(map(len, evaluated))
        if num_images == 0:
            logger.warning("[PanopticEvaluator] Did not receive valid predictions.")
            return OrderedDict()
        repeated = _repeated(chain.from_iterable(evaluated))
        if repeated is not None:
            # Leaving one of the two out would need the stats of every single image.
            raise ValueError(
                f"image {repeated!r} was evaluated more than once. Call reset() between two "
                "evaluations, and share out images with Detectron2's InferenceSampler: samplers "
                "that pad the shares of processes repeat images."
            )
        log = logger.info if num_images == len(self._records) else logger.warning
        log(f"Evaluated {num_images} of {len(self._records)} images of {self._dataset_name}")
        if self._save_dir is not None:
            annotations = sorted(chain.from_iterable(saved), key=lambda entry: entry["file_name"])
            path = write_predictions_json(self._save_dir, annotations, self._categories)
            logger.info(f"Saved predictions to {path}")
        log_panoptic_quality(stats, self._classes, self._dataset_name)
        return OrderedDict(panoptic_seg=panoptic_figures(stats, self._classes))

    def _save(
        self, folder: Path, image_id: Any, ids: np.ndarray, segments_info: list[dict]
    ) -> None:
        # The place makes the name unique. The id is there for people, reduced to characters that
        # are safe in a file name.
        readable = re.sub(r"[^A-Za-z0-9_-]+", "_", str(image_id))[:64]
        name = f"{self._place[image_id]:07d}_{readable}.png"
        self._saved.append(
            save_prediction(folder, name, image_id, ids, segments_info, self._categories)
        )


def _repeated(values: Any) -> Any:
    """A value that occurs more than once, or None."""
    return next((value for value, times in Counter(values).items() if times > 1), None)

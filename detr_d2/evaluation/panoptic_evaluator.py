"""Panoptic quality of a model on a registered panoptic dataset, computed while the model runs.

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
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from tabulate import tabulate

from detr_d2.data.categories import PanopticClasses
from detr_d2.data.mistaken_png import why_ids_differ
from detr_d2.data.panoptic_dataset import load_panoptic_dataset
from detr_d2.data.panoptic_png import read_panoptic_png
from detr_d2.evaluation.panoptic_quality import (
    GroupQuality,
    PanopticStats,
    Segments,
    class_quality,
    compare_panoptic,
    group_quality,
)
from detr_d2.evaluation.saved_predictions import (
    PNG_FOLDER,
    save_prediction,
    write_predictions_json,
)

logger = logging.getLogger(__name__)


class PanopticEvaluator(DatasetEvaluator):
    """Computes PQ, SQ and RQ, image by image.

    Each prediction is compared with its ground truth at once, so memory does not grow with the
    dataset and no temporary file is written. Whether a class is a thing is the dataset's word;
    ``isthing`` of a predicted segment is not trusted. Figures do not depend on the order of images
    nor on the number of processes.
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
            output_dir: where predictions are saved; otherwise unused.
            save_predictions: write ``predictions/*.png`` and, in evaluate, ``predictions.json`` in
                COCO's panoptic format, with the dataset's category ids. An image's PNG is named
                after its place in the dataset and its id, and the JSON holds that name.
            dataset_dicts: the dataset's, where they have been read already.

        Raises:
            KeyError: no dataset is registered under that name.
            ValueError: the dataset has no panoptic annotation, its classes can't be resolved, two
                images share an id, or there is no output_dir to save predictions in.
        """
        records, self._classes = load_panoptic_dataset(dataset_name, dataset_dicts)
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
        """Forgets all images."""
        self._stats = PanopticStats.zeros(len(self._classes.names))
        self._evaluated: list[Any] = []
        self._saved: list[dict[str, Any]] = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Compares predictions with the ground truth of their images.

        Args:
            inputs: dicts with ``image_id``.
            outputs: dicts with ``panoptic_seg``: an (H, W) integer tensor of segment ids on any
                device, 0 for void, and a list of dicts with ``id``, ``category_id`` (0 … K-1) and
                ``isthing``, one for every segment.

        Raises:
            ValueError: a prediction or the ground truth of an image is invalid; the message names
                the image. See compare_panoptic.
            FileNotFoundError: the PNG of the ground truth is missing.
        """
        for image, output in zip(inputs, outputs, strict=True):
            image_id = image["image_id"]
            if image_id not in self._records:
                raise ValueError(f"image {image_id!r} is not in dataset {self._dataset_name!r}")
            record = self._records[image_id]
            try:
                pred_ids, segments_info = _panoptic_output(output)
                stats = compare_panoptic(
                    pred_ids,
                    Segments.from_info(segments_info),
                    read_panoptic_png(PathManager.get_local_path(record["pan_seg_file_name"])),
                    Segments.from_info(record["segments_info"]),
                    num_classes=len(self._classes.names),
                )
                if self._save_dir is not None:
                    self._save(self._save_dir, image_id, pred_ids, segments_info)
            except ValueError as error:
                where = f"image {image_id!r} ({record['pan_seg_file_name']})"
                known = [segment["id"] for segment in record["segments_info"]]
                why = why_ids_differ(record["pan_seg_file_name"], known)
                raise ValueError(f"{where}: {error}{why}") from error
            self._stats += stats
            self._evaluated.append(image_id)

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """Gathers all processes' images and scores them. Has to be called by all processes.

        Returns:
            On the main process, ``{"panoptic_seg": figures}`` with figures in 0 … 100: PQ, SQ, RQ
            over all classes, the same with ``_th`` (things) and ``_st`` (stuff), and ``PQ-<name>``
            of every class; NaN where no segment counts. Empty on other processes and without
            any image.

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
            # Dropping one of the two would need the figures of every image kept apart.
            raise ValueError(
                f"image {repeated!r} was evaluated more than once. Call reset() between two "
                "evaluations, and share out images with Detectron2's InferenceSampler: samplers "
                "that pad the shares of processes repeat images."
            )
        log = logger.info if num_images == len(self._records) else logger.warning
        log(f"Evaluated {num_images} of {len(self._records)} images of {self._dataset_name}")
        if self._save_dir is not None:
            annotations = sorted(chain.from_iterable(saved), key=lambda entry: entry["file_name"])
            path = write_predictions_json(self._save_dir, annotations, self._classes)
            logger.info(f"Saved predictions to {path}")

        is_thing = np.array(self._classes.is_thing)
        groups = {
            "All": group_quality(stats),
            "Things": group_quality(stats, is_thing),
            "Stuff": group_quality(stats, ~is_thing),
        }
        _log_groups(groups, self._dataset_name)
        _log_classes(stats, self._classes)
        return OrderedDict(panoptic_seg=_figures(groups, stats, self._classes))

    def _save(
        self, folder: Path, image_id: Any, ids: np.ndarray, segments_info: list[dict]
    ) -> None:
        # The place makes the name unique; what is kept of the id is for people, and cannot leave
        # the folder whatever the id holds.
        readable = re.sub(r"[^A-Za-z0-9_-]+", "_", str(image_id))[:64]
        name = f"{self._place[image_id]:07d}_{readable}.png"
        self._saved.append(
            save_prediction(folder, name, image_id, ids, segments_info, self._classes)
        )


def _panoptic_output(output: dict[str, Any]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The id map (H×W) and the segments of a model's output."""
    if "panoptic_seg" not in output:
        raise ValueError(f"the model's output has no 'panoptic_seg', only {sorted(output)}")
    ids, segments_info = output["panoptic_seg"]
    if segments_info is None:
        raise ValueError(
            "segments_info is None: ids of the form category · label_divisor + instance (as "
            "Panoptic-DeepLab predicts them) are not supported, list the segments"
        )
    for segment in segments_info:
        if segment.get("isthing") is None:
            raise ValueError(
                f"segment {segment['id']} has no 'isthing', which in Detectron2 says that its "
                "category_id is a dataset id; give the contiguous id, and isthing"
            )
    return torch.as_tensor(ids).cpu().numpy(), segments_info


def _repeated(values: Any) -> Any:
    """One value that occurs more than once, or None."""
    return next((value for value, times in Counter(values).items() if times > 1), None)


def _figures(
    groups: dict[str, GroupQuality], stats: PanopticStats, classes: PanopticClasses
) -> dict[str, float]:
    """The flat dict of figures (× 100) Detectron2 passes on to its event storage."""
    suffixes = {"All": "", "Things": "_th", "Stuff": "_st"}
    figures = {}
    for name, group in groups.items():
        for figure in ("pq", "sq", "rq"):
            figures[figure.upper() + suffixes[name]] = 100 * getattr(group, figure)
    times = Counter(classes.names)
    pq = class_quality(stats).pq
    for class_id, name in enumerate(classes.names):
        key = name if times[name] == 1 else f"{name} ({classes.dataset_ids[class_id]})"
        figures[f"PQ-{key}"] = 100 * float(pq[class_id])
    return figures


def _table(rows: list[list], headers: list[str], floats: str | tuple[str, ...] = ".3f") -> str:
    return tabulate(
        rows,
        headers=headers,
        tablefmt="pipe",
        floatfmt=floats,
        stralign="center",
        numalign="center",
    )


def _log_groups(groups: dict[str, GroupQuality], dataset_name: str) -> None:
    rows = [
        [name, 100 * group.pq, 100 * group.sq, 100 * group.rq, group.num_classes]
        for name, group in groups.items()
    ]
    table = _table(rows, ["", "PQ", "SQ", "RQ", "#categories"])
    logger.info("Panoptic Evaluation Results:\n" + table)
    empty = [name.lower() for name in ("Things", "Stuff") if groups[name].num_classes == 0]
    if empty:
        logger.info(
            f"no {' and no '.join(empty)} in the evaluated images of {dataset_name}: their PQ is "
            "undefined (NaN)"
        )


def _log_classes(stats: PanopticStats, classes: PanopticClasses) -> None:
    """One row per class that occurs, so that 133 classes stay readable on small data."""
    quality = class_quality(stats)
    rows = [
        [
            classes.names[k],
            *(100 * float(values[k]) for values in (quality.pq, quality.sq, quality.rq)),
            *(int(counts[k]) for counts in (stats.tp, stats.fp, stats.fn)),
        ]
        for k in np.flatnonzero(stats.occurs)
    ]
    table = _table(rows, ["class", "PQ", "SQ", "RQ", "TP", "FP", "FN"])
    absent = len(classes.names) - len(rows)
    rest = f" ({absent} classes without any segment left out)" if absent else ""
    logger.info(f"Panoptic quality per class{rest}:\n{table}")

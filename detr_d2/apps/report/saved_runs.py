"""Reports on saved predictions, of one run or of two runs side by side."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from detr_d2.apps.report.ranking import places_that_differ
from detr_d2.apps.report.report_page import write_report
from detr_d2.apps.report.run_record import CompressedPrediction, RunOptions, RunRecord
from detr_d2.apps.report.threshold_sweep import SavedSweep
from detr_d2.data.categories import PanopticClasses
from detr_d2.data.file_names import file_name_of
from detr_d2.data.files_below import find_below
from detr_d2.data.image_file import DEFAULT_OPTIONS, ImageOptions
from detr_d2.data.panoptic_dataset import load_panoptic_dataset
from detr_d2.data.panoptic_fields import (
    SEGMENT_FIELDS,
    annotation_fields,
    image_id_reader,
    read_fields,
)
from detr_d2.data.panoptic_png import read_panoptic_png
from detr_d2.evaluation import MatchedImage
from detr_d2.file_io import read_json

logger = logging.getLogger(__name__)


class SavedRun:
    """The saved predictions of one run. The JSON is checked at once, PNGs are read one by one."""

    def __init__(self, path: Path, dataset_name: str, classes: PanopticClasses) -> None:
        """
        Args:
            path: ``predictions.json``, with the PNGs in ``predictions/`` beside it; or the folder
                of both; or an ``OUTPUT_DIR`` that has that folder as ``inference/<dataset>``.
            dataset_name: the dataset on which the run predicted.
            classes: its classes.

        Raises:
            FileNotFoundError: there are no predictions.
            ValueError: the JSON has another form, or a category that the dataset doesn't have.
        """
        self.path = find_predictions(path, dataset_name)
        self._folder = self.path.with_suffix("")
        self._classes = classes
        self._class_of = {dataset_id: k for k, dataset_id in enumerate(classes.dataset_ids)}
        self._annotations = {
            image_id: {**annotation, "segments_info": self._segments(annotation)}
            for image_id, annotation in _read_annotations(self.path).items()
        }

    def __len__(self) -> int:
        return len(self._annotations)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._annotations

    def __iter__(self) -> Iterator[Any]:
        return iter(self._annotations)

    def __getitem__(self, image_id: Any) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """The (H, W) ids of an image, and its segments with contiguous classes.

        Raises:
            FileNotFoundError: its PNG is missing.
            ValueError: the PNG's name leads out of the folder.
        """
        annotation = self._annotations[image_id]
        ids = read_panoptic_png(find_below(self._folder, annotation["file_name"], self.path))
        return ids, annotation["segments_info"]

    @property
    def lowest_score(self) -> float | None:
        """The lowest score of all segments, in 0 … 1; None if no segment has a score."""
        segments = (s for a in self._annotations.values() for s in a["segments_info"])
        scores = (segment.get("score") for segment in segments)
        return min((score for score in scores if score is not None), default=None)

    def _segments(self, annotation: dict[str, Any]) -> list[dict[str, Any]]:
        where = f"{self.path}: image {annotation['image_id']!r} has a segment"
        return [self._segment(segment, where) for segment in annotation["segments_info"]]

    def _segment(self, segment: dict[str, Any], where: str) -> dict[str, Any]:
        segment = read_fields(segment, SEGMENT_FIELDS, where)
        score = segment.get("score")
        if score is not None and not (isinstance(score, (int, float)) and 0 <= score <= 1):
            raise ValueError(f"{where} with the score {score!r}, which isn't in 0 … 1.")
        if segment["category_id"] not in self._class_of:
            raise ValueError(
                f"{where} of category {segment['category_id']}, which the dataset doesn't have: "
                "are the predictions those of another dataset?"
            )
        class_id = self._class_of[segment["category_id"]]
        isthing = self._classes.is_thing[class_id]
        return {**segment, "category_id": class_id, "isthing": isthing}


def find_predictions(path: Path, dataset_name: str) -> Path:
    """Finds the ``predictions.json`` of a path, see ``SavedRun``.

    Raises:
        FileNotFoundError: there is no such file.
    """
    folder = file_name_of(dataset_name)
    for found in (
        path,
        path / "predictions.json",
        path / "inference" / folder / "predictions.json",
    ):
        if found.is_file():
            return found
    raise FileNotFoundError(
        f"{path}: neither it nor a folder inference/{folder} in it has a predictions.json. "
        "detr-d2 train --eval-only … MODEL.DETR.TEST.SAVE_PREDICTIONS True writes one."
    )


def _read_annotations(path: Path) -> dict[Any, dict[str, Any]]:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise ValueError(f"{path} holds no predictions: it has no list 'annotations'.")
    given = content["annotations"]
    fields = annotation_fields(image_id_reader(a.get("image_id") for a in given if type(a) is dict))
    annotations: dict[Any, dict[str, Any]] = {}
    for place, entry in enumerate(given):
        annotation = read_fields(entry, fields, f"{path}: an annotation (annotations[{place}])")
        if annotation["image_id"] in annotations:
            raise ValueError(f"{path}: image {annotation['image_id']!r} has two annotations.")
        annotations[annotation["image_id"]] = annotation
    return annotations


def report_on_saved(
    paths: Sequence[Path],
    dataset_name: str,
    output_dir: Path,
    *,
    score_thresh: float | None = None,
    image_options: ImageOptions = DEFAULT_OPTIONS,
) -> Path:
    """Writes the report of one run, or of two side by side.

    Args:
        paths: one or two, see ``SavedRun``.
        dataset_name: a registered panoptic dataset.
        output_dir: the folder of ``report.html`` and ``report.json``; it is made if it is missing.
        score_thresh: the score threshold of the predictions, if it is known. It is not used if
            there are saved scores below it.
        image_options: how image files are read.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError, ValueError: a run or the dataset can't be used; the message says why.
    """
    records, classes = load_panoptic_dataset(dataset_name)
    all_saved = [SavedRun(path, dataset_name, classes) for path in paths]
    place = {record["image_id"]: i for i, record in enumerate(records)}
    for saved in all_saved:
        unknown = [image_id for image_id in saved if image_id not in place]
        if unknown:
            raise ValueError(
                f"{saved.path}: image {unknown[0]!r} is not in dataset {dataset_name!r}"
                + (f", nor are {len(unknown) - 1} more." if len(unknown) > 1 else ".")
            )
    lowest = [saved.lowest_score for saved in all_saved if saved.lowest_score is not None]
    if score_thresh is not None and lowest and min(lowest) <= score_thresh:
        logger.warning(
            f"Segments have scores down to {min(lowest):.3g}, so they weren't made with the score "
            f"threshold {score_thresh:g} of the config. The report shows no threshold."
        )
        score_thresh = None
    runs = []
    for name, saved in zip(_short_names(paths, dataset_name), all_saved, strict=True):
        run = RunRecord(RunOptions(name, score_thresh, False, image_options), records, classes)
        for image_id in tqdm(saved, desc=name, unit="image", disable=None):
            ids, segments_info = saved[image_id]
            matched = MatchedImage.of_record(
                records[place[image_id]], ids, segments_info, len(classes.names)
            )
            run.add(place[image_id], matched, SavedSweep(ids, segments_info))
        run.images.sort(key=lambda image: image.place)
        runs.append(run)
    # An image that the page shows for one run is shown for the other run, too.
    shown = set().union(*(run.predictions for run in runs))
    if len(runs) == 2:
        shown.update(*places_that_differ(*(run.images for run in runs)))
    for place_shown in sorted(shown):
        for run, saved in zip(runs, all_saved, strict=True):
            image_id = records[place_shown]["image_id"]
            if image_id in saved:
                run.predictions[place_shown] = CompressedPrediction.of(*saved[image_id])
    return write_report(runs, records, classes, dataset_name, output_dir)


def _short_names(paths: Sequence[Path], dataset_name: str) -> list[str]:
    """Names the runs by the last part of each path that evaluation doesn't give itself."""
    usual = {"predictions.json", file_name_of(dataset_name), "inference"}
    names = [next((p for p in reversed(path.parts) if p not in usual), "run") for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]

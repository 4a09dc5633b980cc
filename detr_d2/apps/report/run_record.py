"""The record of one run: counts and example predictions, gathered image by image.

Memory grows by five numbers for each image. Only the predictions of the few images that the report
may show are kept, compressed.

Axes: H×W pixels of an image, K classes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from detr_d2.apps.report.mistakes import find_mistakes
from detr_d2.apps.report.ranking import NUM_IMAGES, ImageScore, Ranking
from detr_d2.apps.report.report_counts import ReportCounts
from detr_d2.apps.report.threshold_sweep import Sweep, sweep_stats, thresholds_with
from detr_d2.data.categories import PanopticClasses
from detr_d2.data.image_file import DEFAULT_OPTIONS, ImageOptions
from detr_d2.evaluation import MatchedImage, PanopticStats
from detr_d2.evaluation.panoptic_quality import UNITS


@dataclass(frozen=True)
class RunOptions:
    """How the predictions of a run were made.

    Attributes:
        name: the run's name, for people.
        score_thresh: ``MODEL.DETR.TEST.SCORE_THRESH``, None if it is not known.
        recomputes_masks: whether the sweep repeats the pixel-wise argmax of the masks at each
            threshold. Otherwise it drops the saved segments below the threshold.
        image_options: how image files are read.
    """

    name: str
    score_thresh: float | None
    recomputes_masks: bool
    image_options: ImageOptions = DEFAULT_OPTIONS

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The thresholds of the sweep.

        Saved predictions have no segments below the run's own threshold, so their sweep starts
        there.
        """
        known = thresholds_with(self.score_thresh)
        if self.recomputes_masks or self.score_thresh is None:
            return known
        return tuple(t for t in known if t >= self.score_thresh)


@dataclass(frozen=True)
class CompressedPrediction:
    """The prediction of one image, compressed."""

    pixels: bytes
    shape: tuple[int, int]
    segments_info: list[dict[str, Any]]

    @classmethod
    def of(cls, ids: np.ndarray, segments_info: list[dict[str, Any]]) -> CompressedPrediction:
        """Compresses (H, W) ids and copies their segments."""
        content = np.ascontiguousarray(ids, dtype=np.int32).tobytes()
        return cls(zlib.compress(content, 1), ids.shape, [dict(s) for s in segments_info])

    @property
    def ids(self) -> np.ndarray:
        """(H, W) int32."""
        return np.frombuffer(zlib.decompress(self.pixels), np.int32).reshape(self.shape)


class RunRecord:
    """The counts of a run, and the predictions that its report shows.

    Attributes:
        options: how the predictions were made.
        counts: what all figures are computed from.
        images: the score of each image, in the order in which images were added.
        ranking: the images and segments to show.
        random: the places of images to show that were chosen at random, the same in every run.
        predictions: those that may be shown, by the places of their images.
    """

    def __init__(
        self, options: RunOptions, records: list[dict[str, Any]], classes: PanopticClasses
    ) -> None:
        """Starts an empty record.

        Args:
            options: how the predictions are made.
            records: the dataset's dicts.
            classes: the dataset's classes.
        """
        self.options = options
        self.counts = ReportCounts.zeros(len(classes.names), len(options.thresholds))
        self.images: list[ImageScore] = []
        self.ranking = Ranking()
        chosen = np.random.default_rng(0).permutation(len(records))[:NUM_IMAGES]
        self.random: list[int] = chosen.tolist()
        self.predictions: dict[int, CompressedPrediction] = {}
        self._num_classes = len(classes.names)

    def add(self, place: int, matched: MatchedImage, sweep: Sweep) -> None:
        """Adds the prediction of an image.

        Args:
            place: the index of the image in the dataset.
            matched: the prediction, whose segments have ``isthing`` and, if it is known, ``score``.
            sweep: the same image at other thresholds.

        Raises:
            ValueError: the prediction or the ground truth is invalid; the message names the image.
        """
        truth, matching, segments_info = matched.truth, matched.matching, matched.segments_info
        with truth.naming_image():
            stats_of_sweep = sweep_stats(
                sweep, self.options.thresholds, lambda *pred: truth.match(*pred, self._num_classes)
            )
        scores = _scores(segments_info)
        counts = ReportCounts.of_image(matching, stats_of_sweep, scores)
        image = _image_score(place, counts.stats)
        self.counts += counts
        self.images.append(image)
        self.ranking.add(image, *find_mistakes(place, matching, scores))
        if place in self._places_to_show():
            self.predictions[place] = CompressedPrediction.of(matched.ids, segments_info)
            self._drop_others()

    def merge(self, other: RunRecord) -> None:
        """Adds the record of another process."""
        self.counts += other.counts
        self.images = sorted([*self.images, *other.images], key=lambda image: image.place)
        self.ranking.merge(other.ranking)
        self.predictions |= other.predictions
        self._drop_others()

    def _drop_others(self) -> None:
        """Drops the predictions that will not be shown."""
        wanted = self._places_to_show()
        self.predictions = {place: p for place, p in self.predictions.items() if place in wanted}

    def _places_to_show(self) -> set[int]:
        return self.ranking.places() | set(self.random)


def _scores(segments_info: list[dict[str, Any]]) -> np.ndarray | None:
    scores = [segment.get("score") for segment in segments_info]
    return None if None in scores else np.array(scores, dtype=np.float64)


def _image_score(place: int, stats: PanopticStats) -> ImageScore:
    tp, fp, fn = (int(counts.sum()) for counts in (stats.tp, stats.fp, stats.fn))
    weight = tp + 0.5 * fp + 0.5 * fn
    pq = stats.iou_units.sum() / UNITS / weight if weight else float("nan")
    return ImageScore(place, pq, tp, fp, fn)

"""What a report keeps of one run while its predictions go by.

Memory grows by five numbers for each image; whole predictions are kept, compressed, of the few
images alone that may be shown.

Axes: H×W pixels of an image, K classes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.utils.file_io import PathManager

from detr_d2.apps.report.mismatch_reasons import (
    OTHER_CLASS,
    REASONS,
    find_reasons,
    ious_of_one_class,
)
from detr_d2.apps.report.ranking import NUM_IMAGES, ImageScore, Mistake, Ranking
from detr_d2.apps.report.tally import Tally
from detr_d2.apps.report.threshold_sweep import Sweep, sweep_stats, thresholds_with
from detr_d2.data.categories import PanopticClasses
from detr_d2.data.image_file import DEFAULT_OPTIONS, ImageOptions
from detr_d2.data.mistaken_png import why_ids_differ
from detr_d2.data.panoptic_png import read_panoptic_png
from detr_d2.evaluation import PanopticStats, SegmentMatching, Segments, match_segments
from detr_d2.evaluation.panoptic_quality import IOU_UNITS


@dataclass(frozen=True)
class RunOptions:
    """How the predictions of a run were made.

    Attributes:
        name: of the run, for people.
        score_thresh: ``MODEL.DETR.TEST.SCORE_THRESH``, None where nobody knows.
        is_refought: whether other thresholds let masks fight anew; else, segments are dropped.
        image_options: how image files are to be understood.
    """

    name: str
    score_thresh: float | None
    is_refought: bool
    image_options: ImageOptions = DEFAULT_OPTIONS

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Those of the sweep. Of saved predictions none is known below the run's own."""
        known = thresholds_with(self.score_thresh)
        if self.is_refought or self.score_thresh is None:
            return known
        return tuple(t for t in known if t >= self.score_thresh)


@dataclass(frozen=True)
class KeptPrediction:
    """The prediction of one image, compressed."""

    pixels: bytes
    shape: tuple[int, int]
    segments_info: list[dict[str, Any]]

    @classmethod
    def of(cls, ids: np.ndarray, segments_info: list[dict[str, Any]]) -> KeptPrediction:
        """Takes H×W ids and their segments."""
        content = np.ascontiguousarray(ids, dtype=np.int32).tobytes()
        return cls(zlib.compress(content, 1), ids.shape, [dict(s) for s in segments_info])

    @property
    def ids(self) -> np.ndarray:
        """H×W int32."""
        return np.frombuffer(zlib.decompress(self.pixels), np.int32).reshape(self.shape)


class RunRecord:
    """The figures of a run, and the predictions that its report will show.

    Attributes:
        options: how the predictions were made.
        tally: the figures.
        images: a score for each image, in the order in which they came.
        ranking: the images and segments to show.
        random: places of images to show that are drawn by lot, the same each time.
        kept: predictions by the place of their image.
    """

    def __init__(
        self, options: RunOptions, records: list[dict[str, Any]], classes: PanopticClasses
    ) -> None:
        """Takes the dataset's dicts and classes, beside the options."""
        self.options = options
        self.tally = Tally.zeros(len(classes.names), len(options.thresholds))
        self.images: list[ImageScore] = []
        self.ranking = Ranking()
        drawn = np.random.default_rng(0).permutation(len(records))[:NUM_IMAGES]
        self.random: list[int] = drawn.tolist()
        self.kept: dict[int, KeptPrediction] = {}
        self._records, self._num_classes = records, len(classes.names)

    def add(
        self, place: int, ids: np.ndarray, segments_info: list[dict[str, Any]], sweep: Sweep
    ) -> None:
        """Takes the prediction of an image.

        Args:
            place: of the image in the dataset.
            ids: H×W integers.
            segments_info: with ``id``, ``category_id`` (0 … K-1), ``isthing``, ``score`` if known.
            sweep: the same image at other thresholds.

        Raises:
            ValueError: the prediction or the ground truth is invalid; names the image.
        """
        record = self._records[place]
        gt_ids = read_panoptic_png(PathManager.get_local_path(record["pan_seg_file_name"]))
        gt = Segments.from_info(record["segments_info"])

        def match(pred_ids: np.ndarray, segments: list[dict[str, Any]]) -> SegmentMatching:
            return match_segments(
                pred_ids, Segments.from_info(segments), gt_ids, gt, self._num_classes
            )

        try:
            matching = match(ids, segments_info)
            of_sweep = sweep_stats(sweep, self.options.thresholds, match)
        except ValueError as error:
            where = f"image {record['image_id']!r} ({record['pan_seg_file_name']})"
            why = why_ids_differ(record["pan_seg_file_name"], gt.ids.tolist())
            raise ValueError(f"{where}: {error}{why}") from error
        scores = _scores(segments_info)
        of_image = Tally.of_image(matching, of_sweep, scores)
        self.tally += of_image
        image = _image_score(place, of_image.stats)
        self.images.append(image)
        self.ranking.add(image, *_mistakes(place, matching, scores))
        if place in self._wanted():
            self.kept[place] = KeptPrediction.of(ids, segments_info)
            self._forget()

    def merge(self, other: RunRecord) -> None:
        """Takes what another process has recorded."""
        self.tally += other.tally
        self.images = sorted([*self.images, *other.images], key=lambda image: image.place)
        self.ranking.merge(other.ranking)
        self.kept |= other.kept
        self._forget()

    def _forget(self) -> None:
        """Drops predictions that won't be shown."""
        wanted = self._wanted()
        self.kept = {place: kept for place, kept in self.kept.items() if place in wanted}

    def _wanted(self) -> set[int]:
        return self.ranking.places() | set(self.random)

    def __getstate__(self) -> dict[str, Any]:
        # Without the dataset, which every process has.
        return {**vars(self), "_records": []}


def _scores(segments_info: list[dict[str, Any]]) -> np.ndarray | None:
    scores = [segment.get("score") for segment in segments_info]
    return None if None in scores else np.array(scores, dtype=np.float64)


def _image_score(place: int, stats: PanopticStats) -> ImageScore:
    tp, fp, fn = (int(counts.sum()) for counts in (stats.tp, stats.fp, stats.fn))
    weight = tp + 0.5 * fp + 0.5 * fn
    pq = stats.iou_units.sum() / IOU_UNITS / weight if weight else float("nan")
    return ImageScore(place, pq, tp, fp, fn)


def _mistakes(
    place: int, matching: SegmentMatching, scores: np.ndarray | None
) -> tuple[list[Mistake], list[Mistake]]:
    """The false positives and the false negatives of an image."""
    reasons_of_missed, reasons_of_surplus = find_reasons(matching)
    same_class_ious = ious_of_one_class(matching)
    other_class = matching.covers & ~matching.same_class

    def mistake(i, segments, areas, reasons, ious, covered, others, score) -> Mistake:
        """Of segment i; ious and covered are its row or column."""
        other = int(others.classes[covered.argmax()]) if reasons[i] == OTHER_CLASS else None
        return Mistake(
            place=place,
            segment_id=int(segments.ids[i]),
            class_id=int(segments.classes[i]),
            area=int(areas[i]),
            score=score,
            reason=REASONS[reasons[i]],
            other=other,
            iou=float(ious.max(initial=0)),
        )

    gt, pred = matching.gt, matching.pred
    surplus = [
        mistake(
            *(p, pred, matching.pred_areas, reasons_of_surplus),
            *(same_class_ious[:, p], other_class[:, p], gt),
            None if scores is None else float(scores[p]),
        )
        for p in np.flatnonzero(matching.is_surplus)
    ]
    missed = [
        mistake(
            *(g, gt, matching.gt_areas, reasons_of_missed),
            *(same_class_ious[g], other_class[g], pred, None),
        )
        for g in np.flatnonzero(matching.is_missed)
    ]
    return surplus, missed

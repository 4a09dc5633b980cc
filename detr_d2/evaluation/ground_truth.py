"""Reads the annotation of one image, and compares predictions with it.

Axes: H×W pixels of an image, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from detr_d2.data.mistaken_png import why_ids_differ
from detr_d2.data.panoptic_png import read_panoptic_png
from detr_d2.evaluation.segment_matching import SegmentMatching, Segments, match_segments
from detr_d2.file_io import local_path


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The annotated segments of one image and their pixels.

    Attributes:
        image: the name of the image in messages.
        png_path: the panoptic PNG.
        ids: (H, W) int32, 0 for void.
        segments: every segment of the map, with contiguous classes.
    """

    image: str
    png_path: str
    ids: np.ndarray
    segments: Segments

    @classmethod
    def read(
        cls, png_path: str, segments_info: Sequence[dict[str, Any]], image: str
    ) -> GroundTruth:
        """Reads the PNG of an image.

        Args:
            png_path: a local file.
            segments_info: the annotated segments, with contiguous ``category_id``.
            image: the name of the image in messages.

        Raises:
            FileNotFoundError: the PNG is missing.
            ValueError: the annotation is invalid; the message names the image.
        """
        with _naming_image(image, png_path, [segment["id"] for segment in segments_info]):
            segments = Segments.from_info(segments_info)
            return cls(image, png_path, read_panoptic_png(png_path), segments)

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> GroundTruth:
        """Reads the PNG of a dataset's dict; see ``read``."""
        path = local_path(record["pan_seg_file_name"])
        image = f"image {record['image_id']!r} ({record['pan_seg_file_name']})"
        return cls.read(path, record["segments_info"], image)

    def match(
        self, ids: np.ndarray, segments_info: Sequence[dict[str, Any]], num_classes: int
    ) -> SegmentMatching:
        """Matches a prediction of the image.

        Args:
            ids: (H, W) integers, the predicted segment of each pixel, 0 for void.
            segments_info: the predicted segments, with contiguous ``category_id``.
            num_classes: K.

        Raises:
            ValueError: see ``match_segments``.
        """
        pred = Segments.from_info(segments_info)
        return match_segments(ids, pred, self.ids, self.segments, num_classes)

    @contextmanager
    def naming_image(self) -> Iterator[None]:
        """Adds the image, and a likely fault of its PNG, to a ``ValueError`` raised inside."""
        with _naming_image(self.image, self.png_path, self.segments.ids.tolist()):
            yield


@dataclass(frozen=True, eq=False)
class MatchedImage:
    """A prediction of one image, and how it matches the annotation.

    Attributes:
        truth: the annotation.
        ids: (H, W) integers, the predicted segment of each pixel, 0 for void.
        segments_info: the predicted segments, with contiguous ``category_id``.
        matching: of these two.
    """

    truth: GroundTruth
    ids: np.ndarray
    segments_info: Sequence[dict[str, Any]]
    matching: SegmentMatching

    @classmethod
    def of_record(
        cls,
        record: dict[str, Any],
        ids: np.ndarray,
        segments_info: Sequence[dict[str, Any]],
        num_classes: int,
    ) -> MatchedImage:
        """Reads the annotation of a dataset's dict, and matches a prediction of K classes with it.

        Raises:
            FileNotFoundError: the PNG is missing.
            ValueError: prediction or annotation is invalid; the message names the image.
        """
        truth = GroundTruth.of_record(record)
        with truth.naming_image():
            return cls.of(truth, ids, segments_info, num_classes)

    @classmethod
    def of(
        cls,
        truth: GroundTruth,
        ids: np.ndarray,
        segments_info: Sequence[dict[str, Any]],
        num_classes: int,
    ) -> MatchedImage:
        """Matches a prediction of K classes with an annotation; see ``GroundTruth.match``."""
        return cls(truth, ids, segments_info, truth.match(ids, segments_info, num_classes))


@contextmanager
def _naming_image(image: str, png_path: str, segment_ids: Sequence[int]) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{image}: {error}{why_ids_differ(png_path, segment_ids)}") from error

"""The pictures of a report, as data URIs inside the page.

Axes: H×W pixels of an image.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from detectron2.data import Metadata

from detr_d2.apps.html.render_html import jpeg_uri
from detr_d2.apps.report.run_record import CompressedPrediction
from detr_d2.data.image_file import ImageOptions, read_image
from detr_d2.visualization import draw_ground_truth, draw_prediction, fitted

# The longer side of a segment's picture, in pixels.
SEGMENT_SIZE = 220
# The margin around a segment: a share of the longer side of its box, and at least so many pixels.
MARGIN, MIN_MARGIN = 0.35, 6
OUTLINE = (255, 0, 160)


def layers_of_image(
    record: dict[str, Any],
    predictions: list[CompressedPrediction | None],
    metadata: Metadata,
    options: ImageOptions,
) -> list[str]:
    """Draws the image, its ground truth and its predictions: data URIs of pictures of one size.

    The pictures are at most ``MAX_PICTURE_SIZE`` long, like the pictures of evaluations.

    Args:
        record: the dataset's dict of the image.
        predictions: one for each run. Where a run has None, its picture is the plain image.
        metadata: the names and colours of the classes.
        options: how image files are read.
    """
    picture = fitted(read_image(record["file_name"], "RGB", options))
    layers = [picture, draw_ground_truth(picture, record, metadata)]
    for prediction in predictions:
        if prediction is None:
            layers.append(picture)
        else:
            output = {"panoptic_seg": (prediction.ids, prediction.segments_info)}
            layers.append(draw_prediction(picture, output, metadata))
    return [jpeg_uri(layer, 82) for layer in layers]


def picture_of_segment(record: dict[str, Any], mask: np.ndarray, options: ImageOptions) -> str:
    """Draws the outline of a segment on its surroundings: the data URI of a picture.

    Args:
        record: the dataset's dict of the image.
        mask: (H, W) bool, the pixels of the segment.
        options: how image files are read.
    """
    image = read_image(record["file_name"], "RGB", options)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows):
        longer = int(max(np.ptp(rows), np.ptp(columns))) + 1
        side = longer + 2 * max(MIN_MARGIN, round(MARGIN * longer))
        # The cutout is a square if the image is large enough, so that pictures form a neat grid.
        top, bottom = _span(rows[0], rows[-1], side, mask.shape[0])
        left, right = _span(columns[0], columns[-1], side, mask.shape[1])
        image, mask = image[top:bottom, left:right], mask[top:bottom, left:right]
    factor = SEGMENT_SIZE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    picture = np.ascontiguousarray(_resized(image, size))
    large = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    # RETR_CCOMP also finds the outlines of holes.
    contours, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, (255, 255, 255), 4, cv2.LINE_AA)
    cv2.drawContours(picture, contours, -1, OUTLINE, 2, cv2.LINE_AA)
    return jpeg_uri(picture, 85)


def _span(first: int, last: int, length: int, end: int) -> tuple[int, int]:
    """An interval of at most this length around two pixels, within 0 … end."""
    start = max(0, min((first + last + 1 - length) // 2, end - length))
    return int(start), int(min(end, start + length))


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a picture to (width, height)."""
    shrinks = size[0] < picture.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(picture, size, interpolation=how)

"""COCO's run-length encoding (RLE) of all segments of an image at once.

Axes: H×W pixels of an image.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_util

from detr_d2.evaluation.run_lengths import find_runs


def encode_segments(ids: np.ndarray) -> dict[int, dict[str, Any]]:
    """Encodes all segments of an id map in one pass over its pixels.

    Args:
        ids: (H, W) int32 with at least one pixel; 0 is void.

    Returns:
        For each id except 0, the same dict as ``pycocotools.mask.encode(ids == id)``: ``size``,
        [H, W], and ``counts``, compressed bytes.
    """
    height, width = ids.shape
    columns = cv2.transpose(ids).ravel()  # RLE counts down the columns.
    starts, lengths = find_runs(columns)
    ends = starts + lengths
    id_of_run = columns[starts]
    segment_ids = [segment_id for segment_id in np.unique(id_of_run).tolist() if segment_id != 0]
    uncompressed = []
    for segment_id in segment_ids:
        inside = id_of_run == segment_id
        edges = np.stack([starts[inside], ends[inside]], axis=1).ravel()
        # Counts of pixels outside and inside the segment alternate. The first is outside and may be
        # 0; a last count of 0 is left out.
        counts = np.diff(edges, prepend=0, append=() if edges[-1] == ids.size else ids.size)
        uncompressed.append({"size": [height, width], "counts": counts})
    encoded = mask_util.frPyObjects(uncompressed, height, width) if uncompressed else []
    return dict(zip(segment_ids, encoded, strict=True))

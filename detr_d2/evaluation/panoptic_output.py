"""Reads the panoptic segments from the output of a model.

Axes: H×W pixels of an image, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def read_panoptic_output(output: dict[str, Any]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The predicted segments of one image. The output is not changed.

    Args:
        output: a dict with ``panoptic_seg``: an (H, W) integer tensor of segment ids on any device,
            0 for void, and a list of dicts with ``id``, ``category_id`` (0 … K-1) and ``isthing``,
            one for every segment.

    Returns:
        The (H, W) ids and the list of segments.

    Raises:
        ValueError: the output has another form.
    """
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

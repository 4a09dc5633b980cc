"""Colours of classes and segments, as Detectron2's metadata gives them.

Colours are RGB in 0 … 255.
"""

from __future__ import annotations

import numpy as np
from detectron2.data import Metadata

from detr_d2.data.categories import default_color
from detr_d2.visualization.colors import segment_shade
from detr_d2.visualization.panoptic_scene import SceneSegment


def class_color(metadata: Metadata, class_id: int, is_thing: bool) -> np.ndarray:
    """Returns the dataset's colour of a class, or a default where the dataset has none."""
    colors = metadata.get("thing_colors" if is_thing else "stuff_colors")
    if colors is not None and class_id < len(colors):
        return np.array(colors[class_id], np.float64)
    return np.array(default_color(class_id, is_thing), np.float64)


def segment_color(metadata: Metadata, segment: SceneSegment) -> np.ndarray:
    """Returns the colour of a segment: its class's for stuff, a shade of it for things."""
    return segment_shade(class_color(metadata, segment.class_id, segment.is_thing), segment)

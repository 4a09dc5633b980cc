"""The picture of a scene: tinted segments, their outlines and their labels.

This is the one place that draws panoptic pictures, for Detectron2's metadata and for exported
models alike. It needs NumPy and Pillow alone.

Axes: H×W the picture, n segments.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detr_d2.visualization.colors import as_table, lighter
from detr_d2.visualization.inner_points import inner_points
from detr_d2.visualization.labels import Label, draw_labels
from detr_d2.visualization.painting import paint_segments
from detr_d2.visualization.panoptic_scene import PanopticScene, SceneSegment

# The share of a segment's colour in its pixels.
OPACITY = 0.55


def draw_segments(
    image: np.ndarray, scene: PanopticScene, colors: Sequence[np.ndarray], texts: Sequence[str]
) -> np.ndarray:
    """Draws all segments of a scene.

    Args:
        image: H×W×3 uint8, RGB.
        scene: of the same size, with masks.
        colors: n RGB in 0 … 255.
        texts: n labels.

    Returns:
        H×W×3 uint8, RGB.
    """
    assert scene.places is not None
    outlines = as_table([lighter(color) for color in colors])
    picture = paint_segments(image, scene.places, as_table(colors), outlines, OPACITY)
    points = inner_points(scene.places, len(scene.segments))
    # Ids follow segments through a video. In their order, labels find the same room in each frame.
    order = sorted(range(len(points)), key=lambda place: scene.segments[place].id)
    labels = [Label(texts[i], point, colors[i]) for i in order if (point := points[i]) is not None]
    draw_labels(picture, labels)
    return picture


def segment_text(name: str, segment: SceneSegment, numbered: bool) -> str:
    """Returns the label of a segment: its id where wanted, its class's name, and its score."""
    number = f"{segment.id}: " if numbered else ""
    score = "" if segment.score is None else f" {segment.score:.0%}"
    return f"{number}{name}{score}"

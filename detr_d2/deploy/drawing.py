"""Pictures of predictions of exported models, drawn with NumPy and Pillow alone.

Axes: H×W the image, h×w the picture, S segments.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detr_d2.deploy.model_info import ModelClass
from detr_d2.visualization.colors import segment_shade
from detr_d2.visualization.fonts import warn_of_missing
from detr_d2.visualization.panoptic_scene import PanopticScene
from detr_d2.visualization.picture_layout import enlarge
from detr_d2.visualization.segment_picture import draw_segments, segment_text


def draw_panoptic(
    image: np.ndarray, ids: np.ndarray, segments_info: list[dict], classes: Sequence[ModelClass]
) -> np.ndarray:
    """Draws a panoptic picture: colours of classes, shades of objects, outlines, names.

    Args:
        image: H×W×3 uint8, RGB.
        ids: H×W integers, 0 for nothing.
        segments_info: S dicts with ``id``, ``category_id`` (an index of ``classes``), ``isthing``
            and, where it is known, ``score`` in 0 … 1.
        classes: of the model.

    Returns:
        h×w×3 uint8, RGB: as large as the image, or for a small one a whole multiple of it.
    """
    warn_of_missing(tuple(each.name for each in classes))
    picture = enlarge(image)
    scene = PanopticScene.from_panoptic(ids, segments_info).resized(picture.shape[:2])
    shades, texts = [], []
    for segment in scene.segments:
        its_class = classes[segment.class_id]
        shades.append(segment_shade(np.array(its_class.color, np.float64), segment))
        texts.append(segment_text(its_class.name, segment, numbered=False))
    return draw_segments(picture, scene, shades, texts)

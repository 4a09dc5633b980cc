"""Colours of classes and segments: the same each time, and told apart within a class.

Colours are RGB in 0 … 255.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from detectron2.data import Metadata

from detr_d2.data.categories import default_color
from detr_d2.visualization.panoptic_scene import SceneSegment

# Multiples of these, without their whole part, are spread evenly however many there are.
_GOLDEN, _PLASTIC = 0.618034, 0.754878
WHITE = np.full(3, 255.0)


def class_color(metadata: Metadata, class_id: int, is_thing: bool) -> np.ndarray:
    """The dataset's colour of a class, or one of our own where it has none."""
    colors = metadata.get("thing_colors" if is_thing else "stuff_colors")
    if colors is not None and class_id < len(colors):
        return np.array(colors[class_id], np.float64)
    return np.array(default_color(class_id, is_thing), np.float64)


def segment_color(metadata: Metadata, segment: SceneSegment) -> np.ndarray:
    """The colour of a segment: its class's for stuff, for things a shade by their id."""
    color = class_color(metadata, segment.class_id, segment.is_thing)
    if not segment.is_thing:
        return color
    hue, lightness, saturation = colorsys.rgb_to_hls(*color / 255)
    hue += 0.2 * (segment.id * _GOLDEN % 1 - 0.5)
    lightness = np.clip(lightness + 0.3 * (segment.id * _PLASTIC % 1 - 0.5), 0.3, 0.75)
    # Grey classes have no hue that could be turned.
    return 255 * np.array(colorsys.hls_to_rgb(hue % 1, lightness, max(saturation, 0.35)))


def lighter(color: np.ndarray) -> np.ndarray:
    """For outlines: legible on the colour itself."""
    return 0.45 * color + 0.55 * WHITE


def darker(color: np.ndarray) -> np.ndarray:
    """For the ground of white text."""
    # Weights of how bright the three look (Rec. 709).
    brightness = color @ np.array([0.2126, 0.7152, 0.0722])
    return color * min(0.6, 70 / max(brightness, 1))


def as_table(colors: Sequence[np.ndarray]) -> np.ndarray:
    """(n+1)×3 uint8: black for the place 0, then the colours."""
    return np.array([np.zeros(3), *colors]).clip(0, 255).round().astype(np.uint8)

"""Colours of segments: the same each time, and told apart within a class.

Colours are RGB in 0 … 255. NumPy is all that this needs.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np

from detr_d2.visualization.panoptic_scene import SceneSegment

# The fractional parts of multiples of these numbers are spread evenly, however many there are.
_GOLDEN, _PLASTIC = 0.618034, 0.754878
WHITE = np.full(3, 255.0)


def segment_shade(class_color: np.ndarray, segment: SceneSegment) -> np.ndarray:
    """Returns the colour of its class for stuff, and for things a shade of it by their id."""
    if not segment.is_thing:
        return class_color
    hue, lightness, saturation = colorsys.rgb_to_hls(*class_color / 255)
    hue += 0.2 * (segment.id * _GOLDEN % 1 - 0.5)
    lightness = np.clip(lightness + 0.3 * (segment.id * _PLASTIC % 1 - 0.5), 0.3, 0.75)
    # Grey classes have no hue that could be turned.
    return 255 * np.array(colorsys.hls_to_rgb(hue % 1, lightness, max(saturation, 0.35)))


def lighter(color: np.ndarray) -> np.ndarray:
    """Returns a colour for outlines, which is legible on the colour itself."""
    return 0.45 * color + 0.55 * WHITE


def darker(color: np.ndarray) -> np.ndarray:
    """Returns a colour for the ground of white text."""
    # The weights tell how bright the three look (Rec. 709).
    brightness = color @ np.array([0.2126, 0.7152, 0.0722])
    return color * min(0.6, 70 / max(brightness, 1))


def as_table(colors: Sequence[np.ndarray]) -> np.ndarray:
    """Returns (n+1)×3 uint8: black for the place 0, then the colours."""
    return np.array([np.zeros(3), *colors]).clip(0, 255).round().astype(np.uint8)

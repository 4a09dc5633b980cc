"""Tensors as small pictures with a pixel for each cell; they are enlarged where they are shown.

Axes: T maps of h×w cells; H×W an image.
"""

from __future__ import annotations

import base64
import colorsys
import io
from dataclasses import dataclass
from functools import cache

import cv2
import matplotlib
import numpy as np
import torch
from PIL import Image

# Mask logits beyond this look alike: the probability is then within 0.0004 of 0 or 1.
LOGIT_RANGE = 8.0


@dataclass(frozen=True)
class Tiles:
    """T maps side by side in one picture, each relative to its own peak.

    Attributes:
        picture: rows·h × columns·w, 8 bits for the palette "heat": 255 at the peak of each map.
        columns: maps in a row.
        peaks: T highest values.
    """

    picture: np.ndarray
    columns: int
    peaks: list[float]

    @classmethod
    def of(cls, maps: torch.Tensor, columns: int) -> Tiles:
        """Packs T×h×w values of at least 0, row by row; the last row is filled with zeros."""
        count, height, width = maps.shape
        peaks = maps.float().flatten(1).amax(1)
        scale = 255 / peaks.clamp(min=torch.finfo(torch.float32).tiny)
        levels = (maps.float() * scale[:, None, None]).round().byte().cpu().numpy()
        rows = -(-count // columns)
        tiles = np.zeros((rows * columns, height, width), np.uint8)
        tiles[:count] = levels
        picture = tiles.reshape(rows, columns, height, width).swapaxes(1, 2)
        return cls(picture.reshape(rows * height, columns * width), columns, peaks.tolist())


def spread_channels(maps: torch.Tensor, count: int) -> list[int]:
    """Indices of ``count`` of C×h×w channels, spread evenly from the first to the last."""
    return [round(i * (len(maps) - 1) / (count - 1)) for i in range(count)]


def strip(maps: torch.Tensor) -> np.ndarray:
    """Puts T×h×w maps side by side: h × T·w levels, from each map's lowest value to its highest."""
    flat = maps.float().flatten(1)
    low, high = flat.amin(1)[:, None, None], flat.amax(1)[:, None, None]
    levels = (maps.float() - low) / (high - low).clamp(min=1e-12) * 255
    return np.concatenate(list(levels.round().byte().cpu().numpy()), axis=1)


def signed_levels(values: torch.Tensor, limit: float) -> np.ndarray:
    """Turns H×W values into levels, with 128 for 0; values beyond ±limit are clamped."""
    clamped = values.clamp(-limit, limit)
    return (128 + clamped * (127 / limit)).round().byte().cpu().numpy()


@cache
def palette(name: str) -> tuple[np.ndarray, np.ndarray]:
    """256×3 uint8 colours and 256 uint8 opacities.

    "heat" goes from transparent over red to light yellow and is laid over a picture. Other names
    are those of matplotlib's colour maps, which are opaque.
    """
    levels = np.arange(256)
    opacity = np.full(256, 255, np.uint8)
    if name == "heat":
        name, levels = "inferno", 90 + levels * 165 // 255
        opacity = (235 * (np.arange(256) / 255) ** 0.7).astype(np.uint8)
    colors = matplotlib.colormaps[name](levels)[:, :3]
    return (colors * 255).round().astype(np.uint8), opacity


def palette_uri(levels: np.ndarray, name: str) -> str:
    """Encodes H×W uint8 levels in a named palette as the address of a PNG."""
    colors, opacity = palette(name)
    picture = Image.fromarray(levels, "P")
    picture.putpalette(colors.tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=opacity.tobytes(), compress_level=9)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def colored(levels: np.ndarray, name: str) -> np.ndarray:
    """Turns H×W levels into H×W×3 uint8 RGB, in an opaque palette."""
    return palette(name)[0][levels]


def heated(picture: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Lays h×w levels of "heat" over an H×W×3 RGB picture, which is made grey and darker."""
    height, width = picture.shape[:2]
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[:, :, None] * np.float32(0.7)
    colors, opacity = palette("heat")
    alpha = opacity[:, None] / np.float32(255)
    mixture = np.hstack([colors * alpha, 1 - alpha])[levels]  # h×w×4: what is added, what stays
    large = cv2.resize(mixture, (width, height), interpolation=cv2.INTER_NEAREST)
    return (large[:, :, :3] + grey * large[:, :, 3:]).round().astype(np.uint8)


def query_color(query: int) -> tuple[int, int, int]:
    """A query's colour, RGB in 0 … 255; the hues of neighbours differ by the golden ratio."""
    lightness = (0.5, 0.62, 0.42)[query % 3]
    red, green, blue = colorsys.hls_to_rgb(query * 0.61803398875 % 1, lightness, 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


def query_colors(count: int) -> np.ndarray:
    """The colours of all queries: count×3 uint8."""
    return np.array([query_color(query) for query in range(count)], np.uint8)


def at_most(picture: np.ndarray, longest: int) -> np.ndarray:
    """Shrinks an H×W(×3) picture or map that is longer than ``longest``, by nearest pixels."""
    height, width = picture.shape[:2]
    factor = longest / max(height, width)
    if factor >= 1:
        return picture
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST)

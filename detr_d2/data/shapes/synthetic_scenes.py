"""The embedded dataset: synthetic scenes in COCO's panoptic format, drawn deterministically.

A scene is a landscape of two or three kinds of stuff, divided by wavy borders, with up to five
things on it: different sizes, occluding each other, some tiny, some cut by the image's border. Some
scenes have a crowd (a swarm of tiny things, annotated as one segment with ``iscrowd``) or a void
region (unlabelled). Classes differ in shape, colour or texture.

Axes: H×W pixels; points and radii are (x, y) in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from detr_d2.data.shapes.shape_categories import STUFF, THINGS, ShapeCategory

VOID = 0
# Fewer pixels than this are not annotated.
MIN_VISIBLE = 10


# Heights and widths of the scenes.
SIZES = ((96, 96), (72, 96), (96, 72), (80, 88), (88, 80))


@dataclass
class SyntheticScene:
    """A picture with its annotation.

    Attributes:
        image: H×W×3 uint8, RGB.
        ids: H×W int32 segment ids, 0 = void.
        categories: the category of each segment id.
        crowds: the ids of crowd segments.
    """

    image: np.ndarray
    ids: np.ndarray
    categories: dict[int, ShapeCategory] = field(default_factory=dict)
    crowds: set[int] = field(default_factory=set)

    def add_segment(
        self, category: ShapeCategory, mask: np.ndarray, pixels: np.ndarray, segment_id: int
    ) -> None:
        """Paints a segment over what is there: H×W bool mask, H×W×3 uint8 pixels."""
        self.image[mask] = pixels[mask]
        self.ids[mask] = segment_id
        self.categories[segment_id] = category


def draw_scene(seed: tuple[int, int]) -> SyntheticScene:
    """Draws one scene; the same seed gives the same scene."""
    rng = np.random.default_rng(seed)
    height, width = SIZES[rng.integers(len(SIZES))]
    scene = SyntheticScene(
        np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.int32)
    )
    # Distinct ids from the whole 24-bit range, as COCO's annotation has them.
    ids = iter((rng.choice(256**3 - 1, size=64, replace=False) + 1).tolist())
    _draw_stuff(scene, rng, ids)
    if rng.random() < 0.12:
        _draw_crowd(scene, rng, ids)
    for _ in range(rng.integers(1, 6)):
        _draw_thing(scene, rng, ids)
    if rng.random() < 0.15:
        _draw_void(scene, rng)
    _forget_hidden_segments(scene)
    light = rng.uniform(0.8, 1.1)
    noise = rng.normal(0, 5, scene.image.shape)
    scene.image = np.clip(scene.image * light + noise, 0, 255).astype(np.uint8)
    return scene


def _draw_stuff(scene: SyntheticScene, rng: np.random.Generator, ids: Iterator[int]) -> None:
    """Fills the scene with two or three kinds of stuff, one above the other or side by side."""
    height, width = scene.ids.shape
    count = rng.integers(2, 4)
    kinds = [STUFF[i] for i in rng.choice(len(STUFF), size=count, replace=False)]
    side_by_side = rng.random() < 0.25
    length, across = (width, height) if side_by_side else (height, width)
    cuts = (np.arange(1, count) + rng.uniform(-0.25, 0.25, count - 1)) / count * length
    along = np.arange(length)[:, None]
    band = np.zeros((length, across), np.int64)
    for cut in cuts:
        wave = (
            rng.uniform(0, 0.05)
            * length
            * np.sin(np.arange(across) * rng.uniform(0.02, 0.12) + rng.uniform(0, 2 * math.pi))
        )
        tilt = rng.uniform(-0.15, 0.15) * (np.arange(across) - across / 2)
        band += along > cut + wave + tilt
    band = band.T if side_by_side else band
    for i, kind in enumerate(kinds):
        scene.add_segment(kind, band == i, _texture(kind, (height, width), rng), next(ids))


def _draw_thing(scene: SyntheticScene, rng: np.random.Generator, ids: Iterator[int]) -> None:
    """Puts one thing somewhere, possibly over others or across the border."""
    height, width = scene.ids.shape
    side = min(height, width)
    # Mostly small and middling, sometimes tiny, sometimes a third of the image.
    radius = rng.choice([0.07, 0.13, 0.22], p=[0.2, 0.45, 0.35]) * side * rng.uniform(0.8, 1.35)
    centre = np.array([rng.uniform(0.03, 0.97) * width, rng.uniform(0.03, 0.97) * height])
    category = THINGS[rng.integers(len(THINGS))]
    mask = _outline(category.name, (height, width), centre, radius, rng)
    if mask.any():
        pixels = _surface(category, (height, width), centre, radius, rng)
        scene.add_segment(category, mask, pixels, next(ids))


def _draw_crowd(scene: SyntheticScene, rng: np.random.Generator, ids: Iterator[int]) -> None:
    """A swarm of tiny things of one class, annotated as one crowd segment."""
    height, width = scene.ids.shape
    category = THINGS[rng.integers(len(THINGS))]
    middle = np.array([rng.uniform(0.25, 0.75) * width, rng.uniform(0.25, 0.75) * height])
    radius = 0.04 * min(height, width)
    segment_id = next(ids)
    for offset in rng.normal(0, 3 * radius, (12, 2)):
        centre = middle + offset
        mask = _outline(category.name, (height, width), centre, radius, rng)
        pixels = _surface(category, (height, width), centre, radius, rng)
        scene.add_segment(category, mask, pixels, segment_id)
    scene.crowds.add(segment_id)


def _draw_void(scene: SyntheticScene, rng: np.random.Generator) -> None:
    """A patch of noise that belongs to no class."""
    height, width = scene.ids.shape
    mask = np.zeros((height, width), np.uint8)
    centre = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
    axes = (int(rng.uniform(0.06, 0.18) * width), int(rng.uniform(0.06, 0.18) * height))
    cv2.ellipse(mask, centre, axes, rng.uniform(0, 180), 0, 360, 1, cv2.FILLED)
    noise = rng.integers(60, 200, (height, width, 1), dtype=np.uint8).repeat(3, axis=2)
    scene.image[mask > 0] = noise[mask > 0]
    scene.ids[mask > 0] = VOID


def _forget_hidden_segments(scene: SyntheticScene) -> None:
    """Leaves slivers of under MIN_VISIBLE pixels unlabelled, as a person would."""
    ids, inverse, areas = np.unique(scene.ids, return_inverse=True, return_counts=True)
    ids[areas < MIN_VISIBLE] = VOID
    scene.ids = ids[inverse].reshape(scene.ids.shape)
    visible = set(ids.tolist())
    scene.categories = {i: c for i, c in scene.categories.items() if i in visible}
    scene.crowds &= visible


def _outline(
    name: str,
    size: tuple[int, int],
    centre: np.ndarray,
    radius: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """H×W bool mask of a thing's shape."""
    mask = np.zeros(size, np.uint8)
    point = (int(centre[0]), int(centre[1]))
    turn = rng.uniform(0, 2 * math.pi)
    if name == "ball":
        cv2.circle(mask, point, max(int(radius), 1), 1, cv2.FILLED)
    elif name == "ring":
        thickness = max(int(radius * 0.6), 1)
        cv2.circle(mask, point, max(int(radius * 0.8), 1), 1, thickness)
    elif name == "crate":
        stretch = rng.uniform(0.7, 1.3)
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [0.85 * stretch, 0.85 / stretch]
        tilt = rng.uniform(-0.3, 0.3)
        _fill(mask, _rotate(corners, tilt) * radius + centre)
    elif name == "cone":
        corners = np.array([[0, -1.1], [0.8, 0.8], [-0.8, 0.8]])
        _fill(mask, _rotate(corners, rng.uniform(-0.3, 0.3)) * radius + centre)
    elif name == "star":
        angles = turn + np.arange(10) * math.pi / 5
        reach = np.where(np.arange(10) % 2 == 0, 1.15, 0.5)[:, None]
        _fill(mask, np.stack([np.cos(angles), np.sin(angles)], 1) * reach * radius + centre)
    else:  # a bush is a bumpy blob
        angles = np.linspace(0, 2 * math.pi, 40, endpoint=False)
        reach = (0.85 + 0.18 * np.sin(angles * rng.integers(5, 8) + turn))[:, None]
        flat = [1.15, 0.85]
        _fill(mask, np.stack([np.cos(angles), np.sin(angles)], 1) * reach * flat * radius + centre)
    return mask > 0


def _fill(mask: np.ndarray, corners: np.ndarray) -> None:
    cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 1)


def _rotate(points: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def _surface(
    category: ShapeCategory,
    size: tuple[int, int],
    centre: np.ndarray,
    radius: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """H×W×3 uint8 pixels of a thing: its colour, shaded; planks on crates, bands on cones."""
    y, x = np.mgrid[: size[0], : size[1]]
    dx, dy = (x - centre[0]) / radius, (y - centre[1]) / radius
    shade = 1.1 - 0.25 * np.clip(np.hypot(dx + 0.4, dy + 0.4), 0, 2)
    if category.name == "crate":
        shade = shade * np.where(np.sin(dy * 7) > 0.6, 0.6, 1.0)
    elif category.name == "bush":
        shade = shade * (1 + 0.25 * rng.standard_normal(size))
    pixels = _jitter(category.color, rng) * shade[..., None]
    if category.name == "cone":
        pixels[np.abs(dy - 0.2) < 0.2] = 240
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _texture(
    category: ShapeCategory, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """H×W×3 uint8 pixels of a kind of stuff."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    phase = rng.uniform(0, 2 * math.pi)
    if category.name == "sky":
        shade = 0.85 + 0.25 * y / size[0] + 0.06 * np.sin(x / 9 + phase) * np.sin(y / 6)
    elif category.name == "grass":
        shade = 1 + 0.18 * rng.standard_normal(size) * (np.sin(x * 1.7 + phase) > -0.3)
    elif category.name == "water":
        shade = 1 + 0.25 * np.sin(y * 0.9 + 1.5 * np.sin(x / 7 + phase))
    elif category.name == "sand":
        shade = 1 + 0.07 * rng.standard_normal(size)
    elif category.name == "brick":
        row = np.floor(y / 5)
        mortar = (y % 5 < 1) | ((x + 5 * (row % 2) + phase) % 10 < 1)
        shade = np.where(mortar, 1.35, 1.0)
    else:  # snow
        shade = 0.97 + 0.03 * np.sin(x / 11 + y / 8 + phase)
    pixels = _jitter(category.color, rng) * shade[..., None]
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _jitter(color: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    return np.clip(np.array(color) + rng.uniform(-14, 14, 3), 0, 255)

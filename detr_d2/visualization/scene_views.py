"""Views of a scene: all segments, things, classes, boxes, or one segment at a time.

Axes: H×W the picture, which a scene is brought to.
"""

from __future__ import annotations

import cv2
import numpy as np
from detectron2.data import Metadata

from detr_d2.visualization.class_colors import class_color, segment_color
from detr_d2.visualization.colors import lighter
from detr_d2.visualization.fonts import warn_of_missing
from detr_d2.visualization.labels import Label, draw_labels
from detr_d2.visualization.painting import outline_mask, outline_width
from detr_d2.visualization.panoptic_scene import PanopticScene, SceneSegment
from detr_d2.visualization.segment_picture import draw_segments, segment_text

VIEWS = ("panoptic", "instance", "semantic", "boxes", "masks")
# Pictures of single segments: how many side by side, and how long each may be.
TILES_PER_ROW = 3
TILE_SIZE = 480


def draw_view(
    image: np.ndarray, scene: PanopticScene, metadata: Metadata, view: str, *, numbered: bool = True
) -> np.ndarray:
    """Draws a scene.

    Args:
        image: H×W×3 uint8, RGB.
        scene: at any size.
        metadata: of the dataset that names the classes.
        view: "panoptic": all segments; "instance": things; "semantic": classes, without telling
            instances apart; "boxes": predicted boxes of things; "masks": a picture per segment.
        numbered: whether labels have the ids of segments.

    Returns:
        H×W×3 uint8, RGB; for "masks" of another size.

    Raises:
        ValueError: there is no such view, or the scene has no masks and the view needs them.
    """
    _warn_of_missing_characters(metadata)
    if view not in VIEWS:
        raise ValueError(f"There is no view {view!r}, only {', '.join(VIEWS)}.")
    if view == "boxes":
        return _draw_boxes(image, scene.resized(image.shape[:2]), metadata, numbered)
    if scene.places is None:
        raise ValueError(
            f"The view {view!r} needs masks, and the model has none (MODEL.DETR.MASK_ON is False): "
            "take the view 'boxes'."
        )
    if view == "masks":
        return _draw_tiles(image, scene, metadata)
    scene = scene.resized(image.shape[:2])
    if view == "semantic":
        return _draw_classes(image, scene, metadata)
    if view == "instance":
        things = [place for place, segment in enumerate(scene.segments) if segment.is_thing]
        group_of = {place: group for group, place in enumerate(things)}
        scene = scene.regrouped(group_of, [scene.segments[place] for place in things])
    colors = [segment_color(metadata, segment) for segment in scene.segments]
    return draw_segments(
        image, scene, colors, [_text(s, metadata, numbered) for s in scene.segments]
    )


def draw_one(
    image: np.ndarray, scene: PanopticScene, metadata: Metadata, segment_id: int
) -> np.ndarray:
    """Draws one segment alone: the rest of the image is dark and grey.

    Args:
        image: H×W×3 uint8, RGB.
        scene: at any size.
        metadata: of the dataset that names the classes.
        segment_id: which; where the scene has none of this id, all is dark.

    Returns:
        H×W×3 uint8, RGB.

    Raises:
        ValueError: the scene has no masks.
    """
    if scene.places is None:
        raise ValueError("The model has no masks (MODEL.DETR.MASK_ON is False).")
    _warn_of_missing_characters(metadata)
    scene = scene.resized(image.shape[:2])
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    picture = cv2.convertScaleAbs(grey, alpha=0.35)
    for place, segment in enumerate(scene.segments, start=1):
        if segment.id == segment_id:
            alone = np.asarray(scene.places == place).astype(np.uint16)
            color = segment_color(metadata, segment)
            cv2.copyTo(image, alone.astype(np.uint8), picture)
            picture[outline_mask(alone, outline_width(alone.shape))] = lighter(color).round()
            draw_labels(picture, [Label(_text(segment, metadata, True), (0, 0), color, False)])
    return picture


def _draw_classes(image: np.ndarray, scene: PanopticScene, metadata: Metadata) -> np.ndarray:
    group_of_class: dict[tuple[int, bool], int] = {}
    group_of = {
        place: group_of_class.setdefault((s.class_id, s.is_thing), len(group_of_class))
        for place, s in enumerate(scene.segments)
    }
    classes = [SceneSegment(class_id, class_id, is_thing) for class_id, is_thing in group_of_class]
    scene = scene.regrouped(group_of, classes)
    colors = [class_color(metadata, s.class_id, s.is_thing) for s in classes]
    return draw_segments(image, scene, colors, [_text(s, metadata, False) for s in classes])


def _draw_boxes(
    image: np.ndarray, scene: PanopticScene, metadata: Metadata, numbered: bool
) -> np.ndarray:
    picture = image.copy()
    things = [(s, s.box) for s in scene.segments if s.is_thing and s.box is not None]
    width = outline_width(scene.size)
    labels = []
    for segment, box in things:
        color = segment_color(metadata, segment)
        left, upper, right, lower = (round(edge) for edge in box)
        corners = (left, upper), (max(left, right - 1), max(upper, lower - 1))
        cv2.rectangle(picture, *corners, color.round().tolist(), 2 * width)
        labels.append(Label(_text(segment, metadata, numbered), (left, upper), color, False))
    draw_labels(picture, labels)
    return picture


def _draw_tiles(image: np.ndarray, scene: PanopticScene, metadata: Metadata) -> np.ndarray:
    """Draws each segment alone, in rows; an image without segments is drawn once, in grey."""
    factor = min(1, TILE_SIZE / max(image.shape[:2]))
    size = [max(1, round(factor * length)) for length in image.shape[:2]]
    image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    ids = [segment.id for segment in scene.segments] or [0]
    tiles = [draw_one(image, scene, metadata, id) for id in ids]
    columns = min(TILES_PER_ROW, len(tiles))
    white = np.full_like(image, 255)
    tiles += [white] * (-len(tiles) % columns)
    framed = [np.pad(t, ((4, 4), (4, 4), (0, 0)), constant_values=255) for t in tiles]
    rows = [np.hstack(framed[i : i + columns]) for i in range(0, len(framed), columns)]
    return np.vstack(rows)


def _warn_of_missing_characters(metadata: Metadata) -> None:
    """Warns of the characters that no font has, once for the names of all classes."""
    names = (*metadata.get("thing_classes", ()), *metadata.get("stuff_classes", ()))
    warn_of_missing(tuple(dict.fromkeys(names)))


def _text(segment: SceneSegment, metadata: Metadata, numbered: bool) -> str:
    names = metadata.thing_classes if segment.is_thing else metadata.stuff_classes
    return segment_text(names[segment.class_id], segment, numbered)

"""The picture: colours, shades, outlines, and names that cover neither each other nor the edge."""

import itertools

import numpy as np
import pytest
from detectron2.data import Metadata
from PIL import Image, ImageDraw

from detr_d2.deploy import ModelClass, draw_panoptic
from detr_d2.visualization import PanopticScene, draw_view, labels

CLASSES = (ModelClass(1, "car", True, (200, 0, 0)), ModelClass(2, "sky", False, (0, 0, 200)))


def segment(segment_id: int, class_id: int) -> dict:
    thing = CLASSES[class_id].isthing
    return {"id": segment_id, "category_id": class_id, "isthing": thing, "score": 0.9}


def all_apart(boxes: list[tuple]) -> bool:
    return not any(
        a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
        for a, b in itertools.combinations(boxes, 2)
    )


@pytest.fixture
def name_boxes(monkeypatch):
    """Where names were written: left, upper, right, lower; right and lower are outside."""
    boxes = []
    real = labels.free_rectangle

    def record(*args):
        box = real(*args)
        boxes.extend([] if box is None else [box])
        return box

    monkeypatch.setattr(labels, "free_rectangle", record)
    return boxes


def test_colours_shades_and_what_has_no_segment():
    image = np.full((600, 900, 3), 100, np.uint8)
    ids = np.zeros((600, 900), np.int32)
    ids[:300, :300], ids[:300, 300:600], ids[300:] = 1, 2, 3
    segments = [segment(1, 0), segment(2, 0), segment(3, 1)]
    picture = draw_panoptic(image, ids, segments, CLASSES)
    assert picture.shape == image.shape and picture.dtype == np.uint8
    red, other_red = picture[10, 10], picture[10, 310]
    assert red[0] > red[1:].max() + 50 and other_red[0] > other_red[1:].max() + 50
    assert (other_red != red).any()  # the other object has another shade
    # 55 % of the class's colour
    np.testing.assert_array_equal(picture[590, 10], [45, 45, 155])
    np.testing.assert_array_equal(picture[10, 890], [100, 100, 100])
    # a line between two segments, in a lighter colour than they
    assert (picture[100, 299] > picture[100, 290] + 30).all()
    np.testing.assert_array_equal(image, 100)


def test_names_of_other_scripts_are_no_boxes(caplog):
    """All names that the fonts of matplotlib or of the system can write look different."""
    image, ids = np.zeros((300, 400, 3), np.uint8), np.ones((300, 400), np.int32)
    pictures = [
        draw_panoptic(image, ids, [segment(1, 0)], (ModelClass(1, name, True, (9, 9, 9)),))
        for name in ("кот", "рак", "Müł", "Mul", "αβγ", "abc")
    ]
    for one, other in itertools.combinations(pictures, 2):
        assert not np.array_equal(one, other)
    assert not caplog.records


def test_small_images_are_enlarged():
    image, ids = np.zeros((60, 80, 3), np.uint8), np.ones((60, 80), np.int32)
    assert draw_panoptic(image, ids, [segment(1, 1)], CLASSES).shape == (360, 480, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 2), (500, 500)])
def test_no_segments_and_odd_sizes(size):
    image = np.full((*size, 3), 7, np.uint8)
    picture = draw_panoptic(image, np.zeros(size, np.int32), [], CLASSES)
    assert (picture == 7).all()
    assert draw_panoptic(image, np.ones(size, np.int32), [segment(1, 0)], CLASSES).any()


def test_names_lie_inside_and_apart(name_boxes):
    rng = np.random.default_rng(0)
    cells = rng.permutation(30).reshape(5, 6) + 1
    ids = cells.astype(np.int32).repeat(110, 0).repeat(90, 1)
    draw_panoptic(
        np.zeros((*ids.shape, 3), np.uint8), ids, [segment(i, 0) for i in range(1, 31)], CLASSES
    )
    assert len(name_boxes) == 30
    assert all_apart(name_boxes)
    for left, top, right, bottom in name_boxes:
        assert 0 <= left < right <= 540 and 0 <= top < bottom <= 550
        # A name stands on what it names.
        covered = ids[(top + bottom) // 2, left:right]
        assert len(np.unique(covered)) == 1


def test_drawn_as_detectron2s_metadata_are():
    """Exported models and models in PyTorch have the same pictures."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (300, 500, 3), dtype=np.uint8)
    ids = rng.integers(0, 4, (3, 5), dtype=np.int32).repeat(100, 0).repeat(100, 1)
    segments = [segment(1, 0), segment(2, 0), segment(3, 1)]
    metadata = Metadata(
        **{f"{kind}_classes": [each.name for each in CLASSES] for kind in ("thing", "stuff")},
        **{f"{kind}_colors": [each.color for each in CLASSES] for kind in ("thing", "stuff")},
    )
    scene = PanopticScene.from_panoptic(ids, segments)
    np.testing.assert_array_equal(
        draw_panoptic(image, ids, segments, CLASSES),
        draw_view(image, scene, metadata, "panoptic", numbered=False),
    )


def test_crowded_names_are_left_out(name_boxes):
    ids = (np.arange(500 * 500).reshape(500, 500) % 40 + 1).astype(np.int32)
    segments = [segment(i, 0) for i in range(1, 41)]
    draw_panoptic(np.zeros((500, 500, 3), np.uint8), ids, segments, CLASSES)
    assert 0 < len(name_boxes) < 40 and all_apart(name_boxes)


def test_a_name_stands_in_the_thick_of_a_ring_and_not_in_its_hole(name_boxes):
    canvas = Image.new("I", (640, 640))
    ImageDraw.Draw(canvas).ellipse((20, 20, 620, 620), outline=1, width=150)
    ids = np.asarray(canvas).astype(np.int32)
    draw_panoptic(np.zeros((640, 640, 3), np.uint8), ids, [segment(1, 0)], CLASSES)
    ((left, top, right, bottom),) = name_boxes
    assert ids[(top + bottom) // 2, (left + right) // 2] == 1

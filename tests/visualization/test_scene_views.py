"""Each view shows what it is for, where it is, and nothing else."""

import numpy as np
import pytest
from detectron2.data import Metadata

from detr_d2.visualization import (
    VIEWS,
    PanopticScene,
    SceneSegment,
    draw_one,
    draw_view,
    scene_views,
    segment_picture,
)
from detr_d2.visualization.class_colors import class_color, segment_color

GREY = np.full((300, 400, 3), 77, np.uint8)


@pytest.fixture
def rings(make_scene) -> PanopticScene:
    """Two rings, of ids 1 and 2, on ground on the left (3), and nothing on the right."""
    ids = np.zeros((300, 400), np.int32)
    ids[:, :200] = 3
    for id, upper in ((1, 20), (2, 160)):
        ids[upper : upper + 120, 40:160] = id
        ids[upper + 40 : upper + 80, 80:120] = 0
    return make_scene(ids, {1: (0, True), 2: (0, True), 3: (1, False)})


@pytest.fixture
def labels(monkeypatch) -> list[str]:
    """The texts that were written; they are kept out of the picture."""
    texts = []
    record = lambda picture, labels: texts.extend(label.text for label in labels)  # noqa: E731
    for module in (scene_views, segment_picture):
        monkeypatch.setattr(module, "draw_labels", record)
    return texts


def test_panoptic_shows_all_segments_with_their_ids(rings, two_classes, labels):
    picture = draw_view(GREY, rings, two_classes, "panoptic")
    changed = (picture != 77).any(-1)
    assert np.array_equal(changed, rings.ids > 0)  # holes stay holes
    assert labels == ["1: ring 90%", "2: ring 90%", "3: ground 90%"]
    inside = [picture[30, 60], picture[170, 60], picture[10, 10]]
    assert all((one != other).any() for one, other in zip(inside, inside[1:], strict=False))
    labels.clear()
    draw_view(GREY, rings, two_classes, "panoptic", numbered=False)
    assert labels == ["ring 90%", "ring 90%", "ground 90%"]


def test_instance_shows_things_in_the_same_colours(rings, two_classes, labels):
    picture = draw_view(GREY, rings, two_classes, "instance")
    is_thing = np.isin(rings.ids, (1, 2))
    assert np.array_equal((picture != 77).any(-1), is_thing)
    panoptic = draw_view(GREY, rings, two_classes, "panoptic")
    assert np.array_equal(picture[is_thing], panoptic[is_thing])
    assert labels[:2] == ["1: ring 90%", "2: ring 90%"]


def test_semantic_joins_instances(rings, two_classes, labels):
    ids = rings.ids
    ids[140:160, 40:160] = 2  # the rings touch
    infos = rings.segments_info
    picture = draw_view(GREY, PanopticScene.from_panoptic(ids, infos), two_classes, "semantic")
    assert labels == ["ring", "ground"]
    assert (picture[125:145, 60] == picture[125, 60]).all()  # no outline between the two
    assert (picture[30, 60] == picture[250, 60]).all()


def test_boxes_are_those_of_things(rings, two_classes, labels):
    boxes = [(30.2, 10, 170, 150), (300, 200, 420, 310), (0, 0, 50, 50)]
    segments = [
        SceneSegment(s.id, s.class_id, s.is_thing, s.score, box)
        for s, box in zip(rings.segments, boxes, strict=True)
    ]
    picture = draw_view(
        GREY, PanopticScene(None, tuple(segments), (300, 400)), two_classes, "boxes"
    )
    changed = (picture != 77).any(-1)
    assert changed[10, 30:170].all() and changed[149, 30:170].all() and changed[200, 300:].all()
    assert not changed[20:140, 40:160].any() and not changed[210:, 310:].any()
    assert labels == ["1: ring 90%", "2: ring 90%"]


def test_one_segment_alone(rings, two_classes, labels):
    image = np.random.default_rng(0).integers(100, 255, (300, 400, 3), dtype=np.uint8)
    picture = draw_one(image, rings, two_classes, 2)
    alone = rings.ids == 2
    same = (picture == image).all(-1)
    assert same[alone].mean() > 0.9 and not same[~alone].any()
    assert picture[~alone].max() < 100 and np.ptp(picture[~alone], axis=-1).max() == 0
    assert labels == ["2: ring 90%"]
    assert draw_one(image, rings, two_classes, 70).max() < 100


def test_masks_are_a_grid_of_all_segments(rings, two_classes, labels):
    picture = draw_view(np.repeat(GREY, 2, 0), rings, two_classes, "masks")
    assert picture.shape == (480 + 8, 3 * (320 + 8), 3)
    assert labels == ["1: ring 90%", "2: ring 90%", "3: ground 90%"]
    empty = PanopticScene.from_panoptic(np.zeros((300, 400), np.int32), [])
    assert draw_view(GREY, empty, two_classes, "masks").shape == (308, 408, 3)


@pytest.mark.parametrize("view", VIEWS)
def test_scenes_of_nothing_and_of_a_pixel(make_scene, two_classes, view):
    empty = PanopticScene.from_panoptic(np.zeros((300, 400), np.int32), [])
    if view != "masks":
        assert np.array_equal(draw_view(GREY, empty, two_classes, view), GREY)
    pixel = make_scene(np.ones((1, 1), np.int32), {1: (0, True)})
    draw_view(GREY[:1, :1], pixel, two_classes, view)


def test_scenes_are_brought_to_the_size_of_the_picture(rings, two_classes, labels):
    small = rings.resized((30, 40))
    picture = draw_view(GREY, small, two_classes, "panoptic")
    assert np.array_equal((picture != 77).any(-1), small.resized((300, 400)).ids > 0)


def test_what_cannot_be_shown_is_refused(rings, two_classes):
    with pytest.raises(ValueError, match="There is no view 'depth', only panoptic"):
        draw_view(GREY, rings, two_classes, "depth")
    without = PanopticScene(None, rings.segments, rings.size)
    with pytest.raises(ValueError, match=r"'semantic' needs masks.*MODEL\.DETR\.MASK_ON"):
        draw_view(GREY, without, two_classes, "semantic")
    with pytest.raises(ValueError, match="no masks"):
        draw_one(GREY, without, two_classes, 1)


def test_colours_are_fixed_and_apart(two_classes):
    assert np.array_equal(class_color(two_classes, 1, False), [0, 0, 200])
    assert np.array_equal(segment_color(two_classes, SceneSegment(9, 1, False)), [0, 0, 200])
    things = [segment_color(two_classes, SceneSegment(id, 0, True)) for id in range(1, 9)]
    again = segment_color(two_classes, SceneSegment(3, 0, True))
    assert np.array_equal(things[2], again)
    for i, one in enumerate(things):
        assert one.min() >= 0 and one.max() <= 255
        for other in things[:i]:
            assert np.abs(one - other).max() > 8
    unknown = [class_color(Metadata(), k, thing) for k in range(20) for thing in (True, False)]
    assert len({tuple(color.round()) for color in unknown}) == 40

"""The embedded scenes: what they hold, and that they are the same everywhere."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from detr_d2.data.shapes.shape_categories import CATEGORIES
from detr_d2.data.shapes.synthetic_scenes import (
    MIN_VISIBLE,
    SIZES,
    VOID,
    SyntheticScene,
    draw_scene,
)


@pytest.fixture(scope="module")
def scenes() -> list[SyntheticScene]:
    return [draw_scene((0, i)) for i in range(1, 101)]


def areas(scene: SyntheticScene) -> dict[int, int]:
    """Pixels of each segment, void included."""
    return dict(zip(*(a.tolist() for a in np.unique(scene.ids, return_counts=True)), strict=True))


def test_a_seed_gives_one_scene_bit_for_bit(scenes):
    again = draw_scene((0, 7))
    np.testing.assert_array_equal(again.image, scenes[6].image)
    np.testing.assert_array_equal(again.ids, scenes[6].ids)
    assert (again.categories, again.crowds) == (scenes[6].categories, scenes[6].crowds)


def test_a_scene_does_not_depend_on_numpys_global_generator():
    np.random.seed(0)
    first, state = draw_scene((0, 1)), np.random.get_state()[1]
    np.testing.assert_array_equal(state, np.random.RandomState(0).get_state()[1])
    np.random.seed(1)
    np.testing.assert_array_equal(first.image, draw_scene((0, 1)).image)


def test_splits_and_numbers_give_other_scenes(scenes):
    assert len({scene.image.tobytes() for scene in scenes}) == len(scenes)
    assert draw_scene((1, 1)).image.tobytes() != scenes[0].image.tobytes()


def test_segment_ids_are_the_published_ones(scenes):
    """If this fails, figures measured on older scenes are void: raise shapes_dataset.VERSION."""
    digest = hashlib.sha256()
    for scene in scenes[:10]:
        digest.update(repr(sorted((i, c.id) for i, c in scene.categories.items())).encode())
        digest.update(scene.ids.astype("<i4").tobytes())
    assert digest.hexdigest()[:16] == "854f923e5d90a63a"


def test_every_segment_is_described_and_large_enough(scenes):
    for scene in scenes:
        visible = {i: area for i, area in areas(scene).items() if i != VOID}
        assert visible.keys() == scene.categories.keys()
        assert min(visible.values()) >= MIN_VISIBLE
        assert all(0 < i < 256**3 for i in visible)
        assert scene.crowds <= visible.keys()
        assert all(scene.categories[i].isthing for i in scene.crowds)


def test_scenes_vary_as_promised(scenes):
    assert {scene.ids.shape for scene in scenes} == set(SIZES)
    assert all(scene.image.shape == (*scene.ids.shape, 3) for scene in scenes)
    assert all(scene.image.dtype == np.uint8 for scene in scenes)
    assert max(len(scene.categories) for scene in scenes) <= 12
    assert min(len(scene.categories) for scene in scenes) >= 2
    crowds = sum(bool(scene.crowds) for scene in scenes)
    voids = sum(areas(scene).get(VOID, 0) > 50 for scene in scenes)
    assert 5 <= crowds <= 25 and 5 <= voids <= 25
    # The widest range of ids, so that readers can't get by with 8 or 16 bits.
    assert max(max(scene.categories) for scene in scenes) > 2**23


def test_every_class_is_common(scenes):
    times = Counter(c.id for scene in scenes for c in set(scene.categories.values()))
    assert times.keys() == {category.id for category in CATEGORIES}
    assert min(times.values()) >= 20


def test_each_kind_of_stuff_is_one_segment(scenes):
    for scene in scenes:
        stuff = [c.id for c in scene.categories.values() if not c.isthing]
        assert len(set(stuff)) == len(stuff) >= 1


def test_categories_number_things_and_stuff_with_gaps():
    ids = [category.id for category in CATEGORIES]
    assert len(set(ids)) == len({category.name for category in CATEGORIES}) == len(ids) == 12
    assert sorted(ids) != list(range(min(ids), min(ids) + len(ids)))
    assert {category.isthing for category in CATEGORIES} == {True, False}

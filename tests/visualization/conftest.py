"""Scenes to draw."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from detectron2.data import Metadata

from detr_d2.visualization import PanopticScene


@pytest.fixture
def two_classes() -> Metadata:
    """Of a dataset with a thing and a stuff class."""
    return Metadata(
        thing_classes=["ring", "ground"],
        stuff_classes=["ring", "ground"],
        thing_colors=[[230, 60, 0], [0, 0, 200]],
        stuff_colors=[[230, 60, 0], [0, 0, 200]],
    )


@pytest.fixture
def make_scene() -> Callable[..., PanopticScene]:
    """Makes scenes of id maps: ``make_scene(ids, {id: (class_id, is_thing)}, score)``."""

    def make(ids: np.ndarray, classes: dict, score: float | None = 0.9) -> PanopticScene:
        infos = [
            {"id": id, "category_id": class_id, "isthing": is_thing}
            | ({} if score is None else {"score": score})
            for id, (class_id, is_thing) in classes.items()
        ]
        return PanopticScene.from_panoptic(ids, infos)

    return make

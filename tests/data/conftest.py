"""What the tests of both kinds of annotation share."""

from __future__ import annotations

import pytest
from detectron2.data import transforms as T


@pytest.fixture(
    params=[
        [T.RandomFlip(1.0)],
        [T.RandomFlip(1.0, horizontal=False, vertical=True)],
        [T.FixedSizeCrop((23, 31), pad=False)],
        [T.RandomFlip(0.5), T.RandomCrop("absolute_range", (7, 25)), T.RandomFlip(0.5)],
    ],
    ids=["horizontal", "vertical", "crop", "all"],
)
def augmentations(request: pytest.FixtureRequest) -> list[T.Augmentation]:
    """Augmentations that move pixels without mixing them."""
    return request.param

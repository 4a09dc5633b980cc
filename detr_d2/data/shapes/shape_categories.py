"""The classes of the embedded dataset."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ShapeCategory:
    """A class of the embedded data.

    Attributes:
        id: dataset id, deliberately not contiguous, as COCO's are not.
        name: what it shows.
        isthing: whether it is countable.
        color: RGB, of the object itself and of its segments in pictures.
    """

    id: int
    name: str
    isthing: bool
    color: tuple[int, int, int]


CATEGORIES = (
    ShapeCategory(1, "ball", True, (214, 40, 40)),
    ShapeCategory(3, "crate", True, (150, 96, 40)),
    ShapeCategory(4, "cone", True, (255, 136, 0)),
    ShapeCategory(7, "star", True, (250, 220, 50)),
    ShapeCategory(8, "ring", True, (150, 50, 190)),
    ShapeCategory(12, "bush", True, (20, 90, 50)),
    ShapeCategory(100, "sky", False, (120, 180, 240)),
    ShapeCategory(101, "grass", False, (110, 180, 70)),
    ShapeCategory(105, "water", False, (30, 80, 170)),
    ShapeCategory(110, "sand", False, (225, 200, 150)),
    ShapeCategory(120, "brick", False, (175, 85, 70)),
    ShapeCategory(121, "snow", False, (238, 240, 245)),
)
THINGS = tuple(category for category in CATEGORIES if category.isthing)
STUFF = tuple(category for category in CATEGORIES if not category.isthing)

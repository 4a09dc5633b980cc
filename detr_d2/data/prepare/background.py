"""The pixels without annotation: void, or a category of stuff for the background.

Axes: H×W pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detr_d2.data.prepare.category_list import complete_categories
from detr_d2.data.prepare.prepared_segments import Segmentation, uniform

REMEDY = "--background NAME makes them stuff of that name, so that they count."
_VOID_KEPT = "images kept their void, since some of their annotations were left out"


@dataclass(frozen=True)
class Background:
    """What lies below an image's annotations.

    Attributes:
        category_id: of the stuff; None: void.
    """

    category_id: int | None

    def below(
        self, height: int, width: int, problems: Sequence[str], counts: Counter[str]
    ) -> Segmentation:
        """H×W pixels of background, or of void if annotations were left out: these may be anywhere.

        Args:
            height, width: of the image.
            problems: the annotations that were left out.
            counts: images that keep their void are added here.
        """
        if self.category_id is not None and problems:
            counts[_VOID_KEPT] += 1
        return uniform(height, width, None if problems else self.category_id)


def with_background(
    categories: list[dict], name: str | None, where: str | Path
) -> tuple[list[dict], Background]:
    """Adds a category of stuff with a new id to complete ones, if there is a name.

    Raises:
        PreparationError: another category has that name.
    """
    if name is None:
        return categories, Background(None)
    new = {"id": max(category["id"] for category in categories) + 1, "name": name, "isthing": 0}
    return complete_categories([*categories, new], where), Background(new["id"])

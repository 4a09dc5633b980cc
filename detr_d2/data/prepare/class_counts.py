"""How often each class occurs, and which classes have nearly the same name."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from detr_d2.file_io import quoted


@dataclass(frozen=True)
class ClassCount:
    """How often a class occurs in a dataset.

    Attributes:
        name, isthing: of the class.
        segments: of all kinds.
        crowds: how many of them are crowds.
        images: how many have at least one segment.
    """

    name: str
    isthing: bool
    segments: int
    crowds: int
    images: int

    def __str__(self) -> str:
        kind = "thing" if self.isthing else "stuff"
        crowds = f", {self.crowds} of them crowds," if self.crowds else ""
        return (
            f"{quoted(self.name)} ({kind}): {self.segments} segments{crowds} "
            f"in {self.images} images"
        )


def count_classes(categories: Iterable[dict], annotations: Iterable[dict]) -> list[ClassCount]:
    """Counts segments of COCO's panoptic annotations, for each category in its order."""
    segments: Counter = Counter()
    crowds: Counter = Counter()
    images: Counter = Counter()
    for annotation in annotations:
        infos = annotation["segments_info"]
        segments.update(info["category_id"] for info in infos)
        crowds.update(info["category_id"] for info in infos if info.get("iscrowd"))
        images.update({info["category_id"] for info in infos})
    return [
        ClassCount(
            category["name"],
            bool(category["isthing"]),
            segments[category["id"]],
            crowds[category["id"]],
            images[category["id"]],
        )
        for category in categories
    ]


def near_twins(names: Iterable[str]) -> list[str]:
    """A note for each group of names that differ by case, spaces or underscores only."""
    groups = defaultdict(list)
    for name in names:
        alike = re.sub(r"[\s_]+", "", unicodedata.normalize("NFKC", name).casefold())
        groups[alike].append(quoted(name))
    return [
        f"{' and '.join(group)} differ by case, spaces or underscores only, and are learned as "
        f"{len(group)} classes: if they are one, rename them in the annotations"
        for group in groups.values()
        if len(group) > 1
    ]

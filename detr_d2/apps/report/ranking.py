"""The selection of the few images and segments that a report shows."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from detr_d2.apps.report.mistakes import Mistake

# The numbers of images in each group (best, worst, random), and of segments in each group (false
# positives, false negatives).
NUM_IMAGES, NUM_SEGMENTS = 6, 8


@dataclass(frozen=True)
class ImageScore:
    """The quality of one image.

    Attributes:
        place: the index of the image in the dataset.
        pq: 0 … 1, of all its segments together, whatever their classes; NaN if no segment counts.
        tp, fp, fn: numbers of segments.
    """

    place: int
    pq: float
    tp: int
    fp: int
    fn: int

    @property
    def has_pq(self) -> bool:
        """Whether the image has a segment that counts."""
        return self.pq == self.pq


class Top:
    """The entries with the highest keys among all that were added, the highest first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: list[tuple[Any, Any]] = []

    def add(self, key: Any, item: Any) -> None:
        """Adds an item. Keys can be ordered, and no two are equal."""
        self.merge([(key, item)])

    def merge(self, entries: Iterable[tuple[Any, Any]]) -> None:
        """Adds (key, item) pairs."""
        both = [*self._entries, *entries]
        self._entries = heapq.nlargest(self._size, both, key=lambda entry: entry[0])

    @property
    def entries(self) -> list[tuple[Any, Any]]:
        return list(self._entries)

    @property
    def items(self) -> list[Any]:
        return [item for _, item in self._entries]


class Ranking:
    """The best and worst images and the worst mistakes.

    Attributes:
        best, worst: images by their PQ.
        false_positives: segments by their score, or by their area if they have no score.
        false_negatives: segments by their area.
    """

    def __init__(self) -> None:
        self.best, self.worst = Top(NUM_IMAGES), Top(NUM_IMAGES)
        self.false_positives, self.false_negatives = Top(NUM_SEGMENTS), Top(NUM_SEGMENTS)

    def add(
        self,
        image: ImageScore,
        false_positives: Iterable[Mistake],
        false_negatives: Iterable[Mistake],
    ) -> None:
        """Adds an image and its mistakes."""
        if image.has_pq:
            self.best.add((image.pq, image.tp, -image.place), image)
            self.worst.add((-image.pq, image.fp + image.fn, -image.place), image)
        for m in false_positives:
            key = (0.0 if m.score is None else m.score, m.area, -m.place, -m.segment_id)
            self.false_positives.add(key, m)
        for m in false_negatives:
            self.false_negatives.add((m.area, -m.place, -m.segment_id), m)

    def merge(self, other: Ranking) -> None:
        """Adds the images and mistakes of another process."""
        for name, top in vars(self).items():
            top.merge(getattr(other, name).entries)

    def places(self) -> set[int]:
        """The places of all images that are listed or have a listed mistake."""
        return {item.place for top in vars(self).values() for item in top.items}


def places_that_differ(
    before: Iterable[ImageScore], after: Iterable[ImageScore]
) -> tuple[list[int], list[int]]:
    """The places of the images whose PQ rose most from one run to another, and fell most."""
    pq_before = {image.place: image.pq for image in before if image.has_pq}
    gained, lost = Top(NUM_IMAGES), Top(NUM_IMAGES)
    for image in after:
        if image.has_pq and image.place in pq_before:
            gain = image.pq - pq_before[image.place]
            if gain > 0:
                gained.add((gain, -image.place), image.place)
            elif gain < 0:
                lost.add((-gain, -image.place), image.place)
    return gained.items, lost.items

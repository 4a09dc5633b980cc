"""The few images and segments, of any number, that a report shows."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# Images of each kind (best, worst, random), and segments of each kind (surplus, missed) shown.
NUM_IMAGES, NUM_SEGMENTS = 6, 8


@dataclass(frozen=True)
class ImageScore:
    """How well one image is segmented.

    Attributes:
        place: of the image in the dataset.
        pq: of all of its segments together, whatever their classes; NaN where none counts.
        tp, fp, fn: numbers of segments.
    """

    place: int
    pq: float
    tp: int
    fp: int
    fn: int

    @property
    def counts(self) -> bool:
        """Whether it has a segment that counts."""
        return self.pq == self.pq


@dataclass(frozen=True)
class Mistake:
    """A segment without a match.

    Attributes:
        place: of its image in the dataset.
        segment_id: in the prediction, or in the ground truth where it is missed.
        class_id: 0 … K-1.
        area: in pixels.
        score: of a prediction that has one.
        reason: one of ``REASONS``.
        other: the class of the segment that it lies on, where the reason is the class.
        iou: the highest with a segment of its class.
    """

    place: int
    segment_id: int
    class_id: int
    area: int
    score: float | None
    reason: str
    other: int | None
    iou: float


class Top:
    """The few entries of the highest keys among all that were added, the highest first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: list[tuple[Any, Any]] = []

    def add(self, key: Any, item: Any) -> None:
        """Takes an item; keys have an order, and no two are the same."""
        self.merge([(key, item)])

    def merge(self, entries: Iterable[tuple[Any, Any]]) -> None:
        """Takes (key, item) pairs."""
        both = [*self._entries, *entries]
        self._entries = heapq.nlargest(self._size, both, key=lambda entry: entry[0])

    @property
    def entries(self) -> list[tuple[Any, Any]]:
        return list(self._entries)

    @property
    def items(self) -> list[Any]:
        return [item for _, item in self._entries]


class Ranking:
    """The best and worst images, the most confident surplus and the largest missed segments."""

    def __init__(self) -> None:
        self.best, self.worst = Top(NUM_IMAGES), Top(NUM_IMAGES)
        self.surplus, self.missed = Top(NUM_SEGMENTS), Top(NUM_SEGMENTS)

    def add(self, image: ImageScore, surplus: Iterable[Mistake], missed: Iterable[Mistake]) -> None:
        """Takes an image, and its segments without a match."""
        if image.counts:
            self.best.add((image.pq, image.tp, -image.place), image)
            self.worst.add((-image.pq, image.fp + image.fn, -image.place), image)
        for m in surplus:
            key = (0.0 if m.score is None else m.score, m.area, -m.place, -m.segment_id)
            self.surplus.add(key, m)
        for m in missed:
            self.missed.add((m.area, -m.place, -m.segment_id), m)

    def merge(self, other: Ranking) -> None:
        """Takes those of another process."""
        for name, top in vars(self).items():
            top.merge(getattr(other, name).entries)

    def places(self) -> set[int]:
        """Of all images that are shown for one of these reasons."""
        return {item.place for top in vars(self).values() for item in top.items}


def places_that_differ(
    before: Iterable[ImageScore], after: Iterable[ImageScore]
) -> tuple[list[int], list[int]]:
    """Of two runs, the images that gained most PQ and those that lost most: places, most first."""
    pq_before = {image.place: image.pq for image in before if image.counts}
    gained, lost = Top(NUM_IMAGES), Top(NUM_IMAGES)
    for image in after:
        if image.counts and image.place in pq_before:
            gain = image.pq - pq_before[image.place]
            if gain > 0:
                gained.add((gain, -image.place), image.place)
            elif gain < 0:
                lost.add((-gain, -image.place), image.place)
    return gained.items, lost.items

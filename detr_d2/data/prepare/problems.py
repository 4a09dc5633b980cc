"""Errors in data that is prepared, and the report on a preparation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from detr_d2.data.prepare.class_counts import ClassCount


class PreparationError(ValueError):
    """Data that can't be turned into a panoptic dataset. The message is for people."""


@dataclass
class PreparationReport:
    """What a preparation did.

    Attributes:
        images: images written.
        segments: segments written, of all kinds.
        crowds: how many of them are crowds.
        hidden: annotated segments without a visible pixel, which were not written.
        counts: what else was done to annotations, and how often.
        classes: how often each class occurs.
        left_out: a line for each image or annotation that was wrong and therefore left out.
        notes: what else is worth knowing.
    """

    images: int = 0
    segments: int = 0
    crowds: int = 0
    hidden: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    classes: Sequence[ClassCount] = ()
    left_out: list[str] = field(default_factory=list)
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [f"{self.images} images, {self.segments} segments, {self.crowds} of them crowds"]
        if self.hidden:
            lines.append(f"{self.hidden} segments had no visible pixel and were dropped")
        lines.extend(f"{count} {what}" for what, count in self.counts.items())
        if self.classes:
            lines.append("classes:")
            lines.extend(f"  {count}" for count in self.classes)
        lines.extend(self.notes)
        if self.left_out:
            lines.append(f"{len(self.left_out)} left out because of errors:")
            lines.extend(f"  {line}" for line in self.left_out)
        return "\n".join(lines)

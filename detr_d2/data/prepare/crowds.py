"""Notes on annotations of things that are crowds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from detr_d2.data.panoptic_fields import flag, whole_number
from detr_d2.file_io import quoted


def crowd_notes(annotations: Iterable[dict], categories: Iterable[dict]) -> list[str]:
    """Notes for a report; there is none if no annotation of a thing is a crowd.

    Args:
        annotations: COCO's of instances, unchecked.
        categories: complete.
    """
    names = {c["id"]: c["name"] for c in categories if c["isthing"]}
    all_of: Counter[int] = Counter()
    crowds_of: Counter[int] = Counter()
    for annotation in annotations:
        category_id = whole_number(annotation.get("category_id"))
        if category_id is not None and category_id in names:
            all_of[category_id] += 1
            crowds_of[category_id] += flag(annotation.get("iscrowd", 0)) is True
    if not crowds_of.total():
        return []
    notes = [f"{crowds_of.total()} of {all_of.total()} annotations of things are crowds (iscrowd)"]
    only_crowds = [names[i] for i, count in all_of.items() if count == crowds_of[i]]
    if only_crowds:
        notes.append(
            f"All annotations of {', '.join(map(quoted, only_crowds))} are crowds: those of an "
            "image become one segment, from which nothing is learned and which PQ ignores. If they "
            "are single objects, since some tools mark all that is drawn with a brush, use "
            "--crowds-as-things."
        )
    return notes

"""Splits a panoptic dataset in two: a JSON for training and one for validation.

Both name PNGs and images where they are; nothing is copied.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detr_d2.data.panoptic_fields import flag, whole_number
from detr_d2.data.panoptic_fields import image_id as read_image_id
from detr_d2.data.prepare.category_list import complete_categories, read_json
from detr_d2.data.prepare.class_counts import count_classes, near_twins
from detr_d2.data.prepare.problems import PreparationError, PreparationReport
from detr_d2.file_io import quoted, write_json_atomically


def split_panoptic(
    panoptic_json: str | Path, output: str | Path, *, val: float = 0.1, seed: int = 0
) -> PreparationReport:
    """Writes ``panoptic_train.json`` and ``panoptic_val.json``: every image is in one of them.

    Args:
        panoptic_json: COCO's panoptic JSON.
        output: a folder for both.
        val: share of images for validation, above 0 and below 1; neither part is left empty.
        seed: of the draw. The same seed splits the same images alike, however they are ordered.

    Raises:
        FileExistsError: one of the files is there.
        PreparationError: the JSON is wrong or has fewer than two images.
        OSError: a file can't be read or written.
    """
    paths = [Path(output, f"panoptic_{part}.json") for part in ("train", "val")]
    for path in paths:
        if path.exists():
            raise FileExistsError(f"{path} is there already; it is left as it is.")
    if not 0 < val < 1:
        raise PreparationError(f"the share for validation has to lie between 0 and 1, not {val}")
    content = read_json(panoptic_json)
    ids = _image_ids(content, panoptic_json)
    # Sorted by their text, as numbers and texts can't be compared.
    drawn = sorted(ids, key=repr)
    random.Random(seed).shuffle(drawn)
    num_val = min(max(round(val * len(ids)), 1), len(ids) - 1)
    val_ids = set(drawn[:num_val])
    parts = [_part(content, ids - val_ids), _part(content, val_ids)]
    Path(output).mkdir(parents=True, exist_ok=True)
    for path, part in zip(paths, parts, strict=True):
        write_json_atomically(part, path)
    categories = complete_categories(content["categories"], panoptic_json)
    return _report(parts, paths, categories)


def _image_ids(content: Any, where: str | Path) -> set:
    """The ids of all images, after checking that each is annotated at most once.

    Raises:
        PreparationError: the JSON is wrong, or has fewer than two images.
    """
    keys = ("images", "annotations", "categories")
    lists: list[Any] = [content.get(key) if isinstance(content, dict) else None for key in keys]
    if not all(isinstance(entries, list) for entries in lists):
        raise PreparationError(f"{where}: no panoptic JSON, it needs {', '.join(keys)}")
    images, annotations, categories = lists
    complete_categories(categories, where)
    ids: set = set()
    annotated: set = set()
    for entries, key, seen in ((images, "id", ids), (annotations, "image_id", annotated)):
        for entry in entries:
            said = entry.get(key) if isinstance(entry, dict) else None
            image_id = read_image_id(said)
            if image_id is None or image_id in seen:
                raise PreparationError(
                    f"{where}: image {quoted(said)} is no number or text, or is there twice"
                )
            if seen is annotated and not _has_segments(entry):
                raise PreparationError(
                    f"{where}: image {quoted(image_id)} needs a list of segments_info, each with "
                    "a category_id"
                )
            seen.add(image_id)
    if annotated - ids:
        some = quoted(next(iter(annotated - ids)))
        raise PreparationError(f"{where}: image {some} is annotated, but not listed")
    if len(ids) < 2:
        raise PreparationError(f"{where}: {len(ids)} images can't be split")
    return ids


def _has_segments(annotation: dict) -> bool:
    segments = annotation.get("segments_info")
    return isinstance(segments, list) and all(
        isinstance(segment, dict) and whole_number(segment.get("category_id")) is not None
        for segment in segments
    )


def _part(content: dict, ids: set) -> dict:
    return {
        **content,
        "images": [image for image in content["images"] if read_image_id(image["id"]) in ids],
        "annotations": [a for a in content["annotations"] if read_image_id(a["image_id"]) in ids],
    }


def _report(
    parts: Sequence[dict], paths: Sequence[Path], categories: list[dict]
) -> PreparationReport:
    """Counts of both parts, and the categories that only one of them has examples of."""
    annotations = [[_plain(annotation) for annotation in part["annotations"]] for part in parts]
    counts = [count_classes(categories, of_part) for of_part in annotations]
    notes = [
        f"{path}: {len(part['images'])} images" for path, part in zip(paths, parts, strict=True)
    ]
    for path, own, other in zip(paths, counts, counts[::-1], strict=True):
        missing = [
            here.name
            for here, there in zip(own, other, strict=True)
            if there.segments and not here.segments
        ]
        if missing:
            notes.append(f"{path} has no example of {', '.join(sorted(missing))}")
    both = annotations[0] + annotations[1]
    segments = [segment for annotation in both for segment in annotation["segments_info"]]
    return PreparationReport(
        images=sum(len(part["images"]) for part in parts),
        segments=len(segments),
        crowds=sum(segment["iscrowd"] for segment in segments),
        classes=count_classes(categories, both),
        notes=[*notes, *near_twins(category["name"] for category in categories)],
    )


def _plain(annotation: dict) -> dict:
    """The values of an annotation that are counted, as plain numbers."""
    return {
        "segments_info": [
            {
                "category_id": whole_number(segment["category_id"]),
                "iscrowd": flag(segment.get("iscrowd")) is True,
            }
            for segment in annotation["segments_info"]
        ]
    }

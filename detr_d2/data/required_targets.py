"""Makes sure, before a training begins, that it has something to learn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.data import MetadataCatalog

from detr_d2.data.panoptic_fields import is_crowd
from detr_d2.data.panoptic_png import read_panoptic_png


def require_targets(dicts: Sequence[dict], names: Sequence[str]) -> None:
    """Refuses datasets without any target.

    PNGs are read until one shows a listed segment. In nearly all datasets, the first one does.

    Args:
        dicts: of all images.
        names: of their datasets, for messages.

    Raises:
        ValueError: there is none; the message counts images that are empty, crowds or void.
    """
    candidates = [record for record in dicts if _targets(record)]
    if any(_has_target_pixels(record) for record in candidates):
        return
    num_empty = sum(not _annotations(record) for record in dicts)
    num_crowds = sum(len(_annotations(record)) for record in dicts if not _targets(record))
    parts = {
        "have no segment": num_empty,
        f"have nothing but crowds ({num_crowds} of them), which training leaves out": (
            len(dicts) - num_empty - len(candidates)
        ),
        "have no pixel of their segments in the panoptic PNG, which is void there": len(candidates),
    }
    reasons = ", ".join(f"{number} {what}" for what, number in parts.items() if number)
    message = (
        f"{', '.join(names)}: nothing to learn from. Of {len(dicts)} images of DATASETS.TRAIN "
        f"{reasons}. detr-d2 check tells more."
    )
    if num_crowds and not any(MetadataCatalog.get(n).get("crowds_as_things") for n in names):
        message += " If each crowd is one object, set DATASETS.CROWDS_AS_THINGS True."
    raise ValueError(message)


def _annotations(record: dict) -> list[dict]:
    return record.get("segments_info") or record.get("annotations") or []


def _targets(record: dict) -> list[dict]:
    return [annotation for annotation in _annotations(record) if not is_crowd(annotation)]


def _has_target_pixels(record: dict) -> bool:
    if "segments_info" not in record or "pan_seg_file_name" not in record:
        return True
    try:
        ids = read_panoptic_png(record["pan_seg_file_name"])
    except (OSError, ValueError):
        return True  # training reads it again, and then raises the error or skips the image
    return bool(np.isin(ids, [segment["id"] for segment in _targets(record)]).any())

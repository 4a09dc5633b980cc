"""Compares the files of one image with the JSON.

Axes: S segments of the JSON; H×W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import find_objects

from detr_d2.data.check.findings import Finding
from detr_d2.data.image_file import DEFAULT_OPTIONS, ImageOptions, explain_size, read_measured
from detr_d2.data.mistaken_png import why_ids_differ
from detr_d2.data.panoptic_entries import AnnotatedImage
from detr_d2.data.panoptic_png import read_panoptic_png
from detr_d2.file_io import quoted

# Tiny segments have at most so many pixels: the default MODEL.DETR.TEST.MIN_AREA drops them.
TINY_AREA = 4
# Pixels by which a box may be off: some tools count its last row and column, some don't.
BOX_TOLERANCE = 1

# An image of 16 bits is called dark if its largest value times this is still in the range. An image
# that uses 14 of 16 bits is four times too dark.
FAR_BELOW = 4
# Bits that cameras and scanners use.
DEPTHS = (8, 10, 12, 14, 16)


@dataclass
class FilesResult:
    """What the files of an image show.

    Attributes:
        findings: what is wrong.
        areas: (category, number of pixels) of each segment that has pixels and is no crowd.
        void_pixels, pixels: of the PNG; zeros where it can't be read.
    """

    findings: list[Finding] = field(default_factory=list)
    areas: list[tuple[int, int]] = field(default_factory=list)
    void_pixels: int = 0
    pixels: int = 0


def check_files(task: AnnotatedImage, options: ImageOptions = DEFAULT_OPTIONS) -> FilesResult:
    """Reads an image and its panoptic PNG, and compares them with the JSON.

    Args:
        task: the image.
        options: how its file is to be understood.
    """
    result = FilesResult()
    size = (task.height, task.width)
    try:
        colors, highest = read_measured(task.file_name, options)
        height, width, _ = colors.shape
        result.findings.extend(_check_range(task.file_name, highest, options.deep_range))
        if (height, width) != size:
            reason = explain_size(task.file_name, (height, width), size, options)
            found = _size_finding("image_size", task.file_name, (height, width), size, reason)
            result.findings.append(found)
    except (OSError, ValueError) as error:
        result.findings.append(Finding("unreadable_image", task.file_name, str(error)))
    try:
        ids = read_panoptic_png(task.png_name)
    except (OSError, ValueError) as error:
        result.findings.append(Finding("unreadable_png", task.png_name, str(error)))
        return result
    if ids.shape != size:  # areas and boxes would all be wrong
        result.findings.append(_size_finding("png_size", task.png_name, ids.shape, size))
        return result
    result.findings.extend(_check_pixels(ids, task, result))
    return result


def _check_range(path: str, highest: int | None, deep_range: int) -> Iterator[Finding]:
    """Compares the largest value of an image of 16 bits (None for others) with the range."""
    if not highest:  # an all-black image fits every range
        return
    said = f"its largest value is {highest} of {deep_range}"
    if highest > deep_range:
        yield Finding("too_bright_image", path, f"{said}, and all above are white")
    elif highest * FAR_BELOW <= deep_range:
        brightest = 256 * highest // (deep_range + 1)
        fitting = next(2**bits - 1 for bits in DEPTHS if highest < 2**bits)
        what = f"{said}: it will be nearly black, {brightest} of 255 at most"
        yield Finding("dark_image", path, f"{what}. For such images: INPUT.DEEP_RANGE {fitting}")


def _size_finding(
    kind: str, path: str, got: tuple[int, int], said: tuple[int, int], reason: str = ""
) -> Finding:
    what = f"{got[0]}×{got[1]} (height × width), {quoted(said[0])}×{quoted(said[1])} by the JSON"
    return Finding(kind, path, f"{what}. {reason}" if reason else what)


def _check_pixels(ids: np.ndarray, task: AnnotatedImage, result: FilesResult) -> Iterator[Finding]:
    """Compares H×W segment ids with the S segments of the JSON."""
    places = sorted(range(len(task.segments)), key=lambda i: task.segments[i]["id"])
    # No pixel has the last id, so that every search ends inside the list.
    known = np.array([*(task.segments[i]["id"] for i in places), 2**24], np.int32)
    labels = np.searchsorted(known, ids)
    unknown = known[labels] != ids
    labels[unknown] = len(places)
    areas = np.bincount(labels.ravel(), minlength=len(known))
    result.pixels, result.void_pixels = ids.size, int((ids == 0).sum())
    if result.void_pixels == ids.size:
        if task.segments:  # otherwise the image is known to be empty
            yield Finding("all_void", task.png_name, f"{len(task.segments)} segments by the JSON")
        return
    strangers = np.unique(ids[unknown & (ids != 0)])
    if len(strangers):
        why = why_ids_differ(task.png_name, known.tolist())
        yield Finding("ids_not_in_json", task.png_name, f"{quoted(strangers.tolist())}{why}")
    boxes = find_objects(labels + 1, len(known))
    for label, place in enumerate(places):
        segment = task.segments[place]
        if areas[label] == 0:
            yield Finding("ids_not_in_png", task.png_name, quoted(segment))
            continue
        area = int(areas[label])
        yield from _check_segment(segment, area, boxes[label], task.png_name)
        if not segment["iscrowd"]:
            result.areas.append((segment["category_id"], area))


def _check_segment(
    segment: dict, area: int, box: tuple[slice, slice], path: str
) -> Iterator[Finding]:
    # An area that is missing or no number does no harm: nothing reads it.
    said = segment.get("area")
    if isinstance(said, (int, float)) and said != area:
        yield Finding("wrong_area", path, f"{quoted(segment)} has {area} pixels")
    y, x = box
    true_box = (x.start, y.start, x.stop - x.start, y.stop - y.start)
    if not _boxes_agree(segment.get("bbox"), true_box):
        yield Finding("wrong_box", path, f"{quoted(segment)} has the box {list(true_box)}")
    if area <= TINY_AREA and not segment["iscrowd"]:
        yield Finding("tiny_segment", path, f"{quoted(segment)} has {area} pixels")


def _boxes_agree(said: object, true_box: tuple[int, ...]) -> bool:
    """Whether the XYWH box of the JSON, if it has one, agrees with that of the pixels."""
    if not isinstance(said, list) or len(said) != 4:
        return True
    if not all(isinstance(number, (int, float)) for number in said):
        return True
    return all(abs(a - b) <= BOX_TOLERANCE for a, b in zip(said, true_box, strict=True))

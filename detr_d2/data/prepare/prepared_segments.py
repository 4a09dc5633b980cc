"""The segments of an image, which don't overlap.

Where annotations overlap, this rule decides: things lie on crowds, and crowds on stuff. Of two
annotations of one kind, the smaller one lies on top; if both have the same size, the first one
does. Void annotations lie on larger stuff, on larger things, and on all crowds. Crowds of one
category are one segment, and so is all stuff of one category, as COCO's metric expects.

Axes: H×W pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage

from detr_d2.data.panoptic_png import MAX_SEGMENT_ID, id_of_color
from detr_d2.data.prepare.problems import PreparationError

# The most segments of one image: far more than anyone annotates, and few enough to work with.
MAX_SEGMENTS = 65_535
# Step between ids of one category. It is odd, so that all ids come before one repeats.
_ID_STEP = 0x0B1D17
_COMPONENTS = "connected components of things were found"
_CRUMBS = {
    False: "of them are smaller than --min-area and became void",
    True: "of them are smaller than --min-area and became crowds",
}


@dataclass(frozen=True)
class PreparedSegment:
    """A segment. The number ``instance`` distinguishes things that are not crowds."""

    category_id: int
    iscrowd: bool = False
    instance: int | None = None


@dataclass(frozen=True)
class Segmentation:
    """An image's segments.

    Attributes:
        labels: H×W integers: 0 for void, k + 1 for ``segments[k]``.
        segments: each has at least one pixel.
        hidden: how many others had no visible pixel and were dropped.
        problems: wrong annotations, which were left out.
        counts: what was done to annotations, and how often; for the report.
    """

    labels: np.ndarray
    segments: tuple[PreparedSegment, ...]
    hidden: int = 0
    problems: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


def uniform(height: int, width: int, category_id: int | None) -> Segmentation:
    """An image that is all one stuff, or all void where the category is None."""
    if category_id is None:
        return Segmentation(np.zeros((height, width), np.int32), ())
    return Segmentation(np.ones((height, width), np.int32), (PreparedSegment(category_id),))


@dataclass(frozen=True)
class Region:
    """The pixels of one annotation, as a compressed RLE of the image's size.

    Void where the category is None.
    """

    rle: dict
    category_id: int | None
    iscrowd: bool = False


def by_pixel_value(
    values: np.ndarray, segment_of: Callable[[int], PreparedSegment | None]
) -> Segmentation:
    """The segments of a label image.

    Args:
        values: H×W integers.
        segment_of: the segment that a value belongs to; None: void. May raise PreparationError.
    """
    found, where = np.unique(values, return_inverse=True)
    _check_count(len(found))
    numbers: dict[PreparedSegment, int] = {}
    table = np.zeros(len(found), np.int32)
    for i, value in enumerate(found.tolist()):
        segment = segment_of(value)
        if segment is not None:
            table[i] = numbers.setdefault(segment, len(numbers) + 1)
    return Segmentation(table[where].reshape(values.shape), tuple(numbers))


def split_into_components(
    segmentation: Segmentation,
    things: frozenset[int],
    *,
    min_area: int = 0,
    crumbs_are_crowds: bool = False,
) -> Segmentation:
    """Makes each connected component of some categories an instance of its own.

    Pixels that touch at a corner are connected.

    Args:
        segmentation: as ``by_pixel_value`` gives it.
        things: the categories' ids.
        min_area: components of fewer pixels are crumbs, and no instances.
        crumbs_are_crowds: join crumbs to a crowd of their category; else they are void.
    """
    labels = np.zeros_like(segmentation.labels)
    segments: list[PreparedSegment] = []
    counts: Counter[str] = Counter()
    for number, segment in enumerate(segmentation.segments, start=1):
        pixels = segmentation.labels == number
        if segment.category_id not in things:
            segments.append(segment)
            labels[pixels] = len(segments)
            continue
        components, count = ndimage.label(pixels, np.ones((3, 3)))
        whole = np.bincount(components.ravel(), minlength=count + 1) >= min_area
        whole[0] = False
        instances = int(whole.sum())
        to_come = len(segmentation.segments) - number + 1
        _check_count(len(segments) + instances + to_come)
        table = np.where(whole, len(segments) + whole.cumsum(), 0)
        segments += [PreparedSegment(segment.category_id, instance=i) for i in range(instances)]
        if crumbs_are_crowds and instances < count:
            segments.append(PreparedSegment(segment.category_id, iscrowd=True))
            table[1:][~whole[1:]] = len(segments)
        labels += table[components].astype(labels.dtype)
        counts.update({_COMPONENTS: count, _CRUMBS[crumbs_are_crowds]: count - instances})
    return Segmentation(labels, tuple(segments), counts=+counts)


def by_regions(
    regions: list[Region],
    is_thing: Mapping[int, bool],
    below: Segmentation,
    problems: Iterable[str] = (),
    counts: Mapping[str, int] | None = None,
) -> Segmentation:
    """The segments of regions that may overlap, see the module's rule.

    Args:
        regions: in the order of annotation.
        is_thing: by category id.
        below: what is seen where no region is: void or stuff. If regions cover it completely, it
            doesn't count as hidden.
        problems, counts: of the result.
    """
    _check_count(len(regions) + len(below.segments))
    numbers = {segment: number for number, segment in enumerate(below.segments, start=1)}
    painted = []
    for place, region in enumerate(regions):
        area = int(coco_mask.area(region.rle))
        if region.category_id is None:
            painted += [(layer, -area, -place, 0, region.rle) for layer in (0, 2)]
            continue
        crowd = is_thing[region.category_id] and region.iscrowd
        alone = is_thing[region.category_id] and not region.iscrowd
        segment = PreparedSegment(region.category_id, crowd, place if alone else None)
        number = numbers.setdefault(segment, len(numbers) + 1)
        layer = 2 * alone + crowd
        painted.append((layer, -area, -place, number, region.rle))
    stuff = [number for segment, number in numbers.items() if not is_thing[segment.category_id]]
    labels = below.labels.copy()
    for layer, *_, number, rle in sorted(painted, key=lambda paint: paint[:3]):
        x, y, width, height = map(int, coco_mask.toBbox(rle))
        box = slice(y, y + height), slice(x, x + width)
        covered = coco_mask.decode(rle)[box] != 0
        if number == 0 and layer:  # stuff that is smaller than this void stays
            covered &= ~np.isin(labels[box], stuff)
        labels[box][covered] = number
    visible = np.bincount(labels.ravel(), minlength=len(numbers) + 1) > 0
    visible[0] = False
    kept = tuple(segment for segment, number in numbers.items() if visible[number])
    hidden = int((~visible[len(below.segments) + 1 :]).sum())
    renumbered = np.where(visible, visible.cumsum(), 0).astype(np.int32)
    return Segmentation(renumbered[labels], kept, hidden, tuple(problems), counts or {})


def _check_count(count: int) -> None:
    if count > MAX_SEGMENTS:
        raise PreparationError(f"{count} segments in one image; {MAX_SEGMENTS} are allowed")


def segment_ids(
    segments: Iterable[PreparedSegment], colors: Mapping[int, tuple[int, int, int]]
) -> list[int]:
    """Different ids above 0 whose colour in the PNG is the category's, or near it.

    panopticapi's IdGenerator draws ids at random, and searches forever if a colour has no free
    neighbour.

    Args:
        segments: of one image.
        colors: red, green and blue, 0 … 255, by category id.
    """
    taken, ids = {0}, []
    next_ids: dict[int, int] = {}
    for segment in segments:
        category = segment.category_id
        candidate = next_ids.get(category, id_of_color(colors[category]))
        while candidate in taken:
            candidate = (candidate + _ID_STEP) % (MAX_SEGMENT_ID + 1)
        next_ids[category] = candidate
        taken.add(candidate)
        ids.append(candidate)
    return ids


def segments_info(segmentation: Segmentation, ids: list[int]) -> list[dict]:
    """COCO's description of each segment: id, category, area, bbox (x, y, w, h) and iscrowd."""
    count = len(segmentation.segments)
    areas = np.bincount(segmentation.labels.ravel(), minlength=count + 1)
    boxes = ndimage.find_objects(segmentation.labels, max_label=count)
    infos = []
    for k, (segment, (rows, columns)) in enumerate(zip(segmentation.segments, boxes, strict=True)):
        width, height = columns.stop - columns.start, rows.stop - rows.start
        infos.append(
            {
                "id": ids[k],
                "category_id": segment.category_id,
                "area": int(areas[k + 1]),
                "bbox": [columns.start, rows.start, width, height],
                "iscrowd": int(segment.iscrowd),
            }
        )
    return infos

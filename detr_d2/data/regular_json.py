"""Reads panoptic JSONs that are exactly as COCO's own, as fast as they can be parsed.

The parser checks everything by strict types, which accept nothing unusual. If a file has something
unusual, whether it is wrong or only rare, these functions return None. ``PanopticEntries`` then
reads the file entry by entry and reports what it found.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from detr_d2.data.files_below import find_below
from detr_d2.data.panoptic_png import MAX_SEGMENT_ID
from detr_d2.file_io import without_garbage_collection

_Number = Annotated[int, msgspec.Meta(ge=1 - 2**63, le=2**63 - 1)]
# The first annotation names its segments within this many bytes, even if there are hundreds.
_FIRST_ANNOTATION = 2**17
_Size = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class _Segment(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A segment with COCO's fields alone. Other fields would have to be kept."""

    id: Annotated[int, msgspec.Meta(ge=1, le=MAX_SEGMENT_ID)]
    category_id: _Number
    iscrowd: Annotated[int, msgspec.Meta(ge=0, le=1)]
    bbox: Any
    area: Any


class _Image(msgspec.Struct, gc=False):
    id: _Number
    file_name: str
    height: _Size
    width: _Size


class _Annotation(msgspec.Struct, gc=False):
    image_id: _Number
    file_name: str
    segments_info: list[_Segment]


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[Any]


class _Outline(msgspec.Struct):
    images: msgspec.Raw
    annotations: msgspec.Raw
    categories: list[Any]


class RegularFile(NamedTuple):
    """What Detectron2 needs of a file.

    Attributes:
        dicts: Detectron2's standard dicts of the annotated images.
        num_images: how many images there are, with or without an annotation.
    """

    dicts: list[dict]
    num_images: int


def read_outline(path: str | Path) -> dict[str, list] | None:
    """Reads the categories of a file, unchecked, and skips its images and annotations.

    Returns:
        The three lists, of which only "categories" has entries; None if two names are the same, or
        if the file has another form.
    """
    try:
        outline = msgspec.json.decode(Path(path).read_bytes(), type=_Outline)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    images, annotations = memoryview(outline.images), memoryview(outline.annotations)
    if images[:1] != b"[" or annotations[:1] != b"[":
        return None
    if b'"segments_info"' not in bytes(annotations[:_FIRST_ANNOTATION]):
        return None  # perhaps it annotates instances
    names = [category.get("name") for category in outline.categories if isinstance(category, dict)]
    if len(set(map(str, names))) < len(outline.categories):
        return None
    return {"images": [], "annotations": [], "categories": outline.categories}


def read_regular(
    path: str | Path,
    image_root: str | Path,
    panoptic_root: str | Path,
    contiguous: Mapping[int, int],
    things: Collection[int],
) -> RegularFile | None:
    """Reads a file whose entries are all regular and contradict neither each other nor the classes.

    Args:
        path: a local file.
        image_root, panoptic_root: the folders that file names start from.
        contiguous: the class of each category id.
        things: the category ids of things.

    Returns:
        The dicts of the file; None for any other file.
    """
    with without_garbage_collection():
        try:
            content = msgspec.json.decode(Path(path).read_bytes(), type=_File)
            images = {image.id: image for image in content.images}
            annotated = {annotation.image_id for annotation in content.annotations}
            if len(images) < len(content.images) or len(annotated) < len(content.annotations):
                return None
            dicts = []
            content.annotations.reverse()
            while content.annotations:  # never all of them are in memory in both forms
                annotation = content.annotations.pop()
                image = images[annotation.image_id]
                segments = annotation.segments_info
                if len({segment.id for segment in segments}) < len(segments):
                    return None
                dicts.append(
                    {
                        "file_name": find_below(image_root, image.file_name, path),
                        "image_id": image.id,
                        "height": image.height,
                        "width": image.width,
                        "pan_seg_file_name": find_below(panoptic_root, annotation.file_name, path),
                        "segments_info": [
                            {
                                "id": segment.id,
                                "category_id": contiguous[segment.category_id],
                                "iscrowd": segment.iscrowd,
                                "bbox": segment.bbox,
                                "area": segment.area,
                                "isthing": segment.category_id in things,
                            }
                            for segment in segments
                        ],
                    }
                )
        # Not regular, unknown images or categories, or file names that leave their folder.
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, KeyError, ValueError):
            return None
    return RegularFile(dicts, len(images))

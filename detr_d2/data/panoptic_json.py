"""COCO's panoptic JSON: read once, checked, and turned into Detectron2's metadata and dicts."""

from __future__ import annotations

import colorsys
import itertools
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detr_d2.data.panoptic_entries import (
    PanopticEntries,
    read_categories_list,
    read_panoptic_lists,
)
from detr_d2.data.panoptic_fields import color
from detr_d2.data.regular_json import read_outline, read_regular
from detr_d2.file_io import local_path, quoted

if TYPE_CHECKING:
    from detectron2.data import Metadata

logger = logging.getLogger(__name__)


def set_panoptic_metadata(name: str, categories: Iterable[dict], **more: object) -> Metadata:
    """Derives Detectron2's panoptic metadata from COCO's ``categories``.

    Contiguous ids count things first, then stuff, each in the order of dataset ids. Both lists of
    names hold all classes, as in Detectron2's own panoptic datasets: its visualizer and its
    evaluators look names up in them by contiguous id.
    """
    from detectron2.data import MetadataCatalog  # the rest of the module does without PyTorch

    ordered = sorted(categories, key=lambda c: (not c["isthing"], c["id"]))
    return MetadataCatalog.get(name).set(**class_metadata(ordered), **more)


def class_metadata(categories: Sequence[dict]) -> dict[str, object]:
    """The part of Detectron2's panoptic metadata that describes classes.

    Args:
        categories: COCO's, with colours, in the order of contiguous ids.
    """
    names = [c["name"] for c in categories]
    colors = [list(c["color"]) for c in categories]
    return {
        "thing_classes": names,
        "stuff_classes": names,
        "thing_colors": colors,
        "stuff_colors": colors,
        "thing_dataset_id_to_contiguous_id": {
            c["id"]: i for i, c in enumerate(categories) if c["isthing"]
        },
        "stuff_dataset_id_to_contiguous_id": {
            c["id"]: i for i, c in enumerate(categories) if not c["isthing"]
        },
    }


def read_categories(panoptic_json: str | Path) -> list[dict]:
    """Reads only the categories.

    Returns:
        For each category ``id``, ``name``, ``isthing`` (a bool) and ``color``: three numbers in
        0 … 255. If the file has none, one is added that no other category has; it is always the
        same.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no panoptic JSON; a category lacks something, has a wrong value, or has
            the id or name of another.
    """
    path = local_path(panoptic_json)
    entries = PanopticEntries(read_outline(path) or read_panoptic_lists(path), panoptic_json)
    unused = [category.get("id") for category in entries.unused_namesakes()]
    if unused:
        logger.warning(
            "%s: these categories are left out, as no segment uses them and others have their "
            "names: %s",
            panoptic_json,
            quoted(unused),
        )
    fields = ("id", "name", "isthing", "color")
    complete = colored_categories(entries.categories())
    return [{field: category[field] for field in fields} for category in complete]


def complete_categories(
    categories: Sequence[object], where: str | Path, *, isthing: bool | None = None
) -> list[dict]:
    """Checks COCO's ``categories`` and adds what is missing.

    Args:
        categories: as a file has them; they aren't changed.
        where: the file, for messages.
        isthing: the value for categories without ``isthing``; None: it must be there.

    Returns:
        Copies of the categories, with ``isthing`` as a bool and with ``color``: three numbers in
        0 … 255. An added colour is always the same, and no other category has it.

    Raises:
        ValueError: a category lacks something or has the id or name of another.
    """
    return colored_categories(read_categories_list(categories, where, isthing=isthing))


def colored_categories(categories: Sequence[dict]) -> list[dict]:
    """Categories with a ``color`` each. A wrong one is replaced: it is only decoration."""
    colors = [color(category.get("color")) for category in categories]
    used = {tuple(given) for given in colors if given}
    fresh = (made for made in _distinct_colors() if made not in used)
    return [
        {**category, "color": given or list(next(fresh))}
        for category, given in zip(categories, colors, strict=True)
    ]


def read_panoptic_json(
    panoptic_json: str | Path,
    image_root: str | Path,
    panoptic_root: str | Path,
    metadata: Metadata,
) -> list[dict]:
    """Reads the annotation into Detectron2's standard dicts for panoptic segmentation.

    Images without annotation are left out; the log says how many.

    Returns:
        For each image ``file_name``, ``image_id``, ``height``, ``width``, ``pan_seg_file_name`` and
        ``segments_info``, whose ``category_id`` are contiguous.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no panoptic JSON; an entry lacks something, names an unknown image or
            category, has the id of another, or has a file name that leaves its folder.
    """
    path = local_path(panoptic_json)
    things = metadata.thing_dataset_id_to_contiguous_id
    contiguous = {**metadata.stuff_dataset_id_to_contiguous_id, **things}
    dicts, num_images = read_regular(
        path, image_root, panoptic_root, contiguous, things
    ) or _read_entries(panoptic_json, image_root, panoptic_root, contiguous, things)
    if len(dicts) < num_images:
        logger.warning(
            "%s: %d of %d images have no annotation and are left out.",
            panoptic_json,
            num_images - len(dicts),
            num_images,
        )
    return dicts


def _read_entries(
    panoptic_json: str | Path,
    image_root: str | Path,
    panoptic_root: str | Path,
    contiguous: Mapping[int, int],
    things: Collection[int],
) -> tuple[list[dict], int]:
    """The dicts and the number of images of a file that isn't regular, or that has a problem."""
    entries = PanopticEntries(read_panoptic_lists(local_path(panoptic_json)), panoptic_json)
    images = entries.images(image_root)
    dicts = [
        {
            "file_name": image.file_name,
            "image_id": image.image_id,
            "height": image.height,
            "width": image.width,
            "pan_seg_file_name": image.png_name,
            "segments_info": [
                {
                    **segment,
                    "category_id": contiguous[segment["category_id"]],
                    "isthing": segment["category_id"] in things,
                }
                for segment in image.segments
            ],
        }
        for image in entries.annotated_images(images, panoptic_root, contiguous)
    ]
    return dicts, len(images)


def _distinct_colors() -> Iterable[tuple[int, int, int]]:
    """Colours without end. Hues advance by the golden section, so that neighbours differ."""
    for i in itertools.count():
        red, green, blue = colorsys.hsv_to_rgb(i * 0.618034 % 1, 0.9 - i % 3 * 0.25, 0.95)
        yield round(255 * red), round(255 * green), round(255 * blue)

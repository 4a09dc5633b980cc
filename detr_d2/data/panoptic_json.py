"""COCO's panoptic JSON: read once, checked, and turned into Detectron2's metadata and dicts."""

from __future__ import annotations

import colorsys
import itertools
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from detectron2.data import Metadata, MetadataCatalog
from detectron2.utils.file_io import PathManager

from detr_d2.data.json_file import read_json
from detr_d2.data.messages import quoted

logger = logging.getLogger(__name__)

# Contents that were read for their categories and wait for their images to be asked for, with the
# state of the file: a dataset is registered and read without parsing it twice.
_waiting: dict[str, tuple[tuple[int, int], dict]] = {}


def set_panoptic_metadata(name: str, categories: Iterable[dict], **more: object) -> Metadata:
    """Derives Detectron2's panoptic metadata from COCO's ``categories``.

    Contiguous ids count things first, then stuff, each in the order of dataset ids. Both lists of
    names hold all classes, as in Detectron2's own panoptic datasets: its visualizer and its
    evaluators look names up in them by contiguous id.
    """
    ordered = sorted(categories, key=lambda c: (not c["isthing"], c["id"]))
    return MetadataCatalog.get(name).set(**class_metadata(ordered), **more)


def class_metadata(categories: Sequence[dict]) -> dict[str, object]:
    """What Detectron2's panoptic metadata says of classes.

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
    """Reads the categories alone.

    Returns:
        For each category ``id``, ``name``, ``isthing`` (a bool) and ``color`` (three of 0 … 255;
        where the file has none, one that no other category has, the same each time).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no panoptic JSON; a category lacks something, has a value that makes no
            sense, or has the id or name of another.
    """
    given = _content(panoptic_json)["categories"]
    if not given:
        raise ValueError(f"{panoptic_json}: the list 'categories' is empty.")
    fields = ("id", "name", "isthing", "color")
    complete = complete_categories(given, panoptic_json)
    return [{field: category[field] for field in fields} for category in complete]


def complete_categories(
    categories: Iterable[object], where: str | Path, *, isthing: bool | None = None
) -> list[dict]:
    """Checks COCO's ``categories`` and adds what they don't say.

    Args:
        categories: as a file has them; they aren't changed.
        where: the file, for messages.
        isthing: what categories are that don't say it; None: they have to.

    Returns:
        All there is of each category, with ``isthing`` as a bool and a ``color`` (three of
        0 … 255; a made one is no other category's, and the same each time).

    Raises:
        ValueError: a category is wrong, see ``check_category``, or has the id or name of another.
    """
    complete: list[dict] = []
    for given in categories:
        check_category(given, where, isthing=isthing)
        complete.append({**given, "isthing": bool(given.get("isthing", isthing))})
    for key in ("id", "name"):
        counts = Counter(category[key] for category in complete)
        twice = [value for value, count in counts.items() if count > 1]
        if twice:
            raise ValueError(f"{where}: two categories have the same {key}: {quoted(twice)}.")
    used = {tuple(category["color"]) for category in complete if category.get("color")}
    fresh = (color for color in _distinct_colors() if color not in used)
    for category in complete:
        category["color"] = list(category.get("color") or next(fresh))
    return complete


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
    content = _content(panoptic_json)
    _waiting.pop(str(panoptic_json), None)  # not kept, since annotations of many images are large
    images: dict[object, dict] = {}
    for image in content["images"]:
        require_fields(image, IMAGE_FIELDS, f"{panoptic_json}: an image")
        if image["id"] in images:
            raise ValueError(f"{panoptic_json}: two images have the id {image['id']!r}.")
        images[image["id"]] = image
    things = metadata.thing_dataset_id_to_contiguous_id
    stuff = metadata.stuff_dataset_id_to_contiguous_id

    def contiguous(segment: dict, image_id: object) -> dict:
        where = f"{panoptic_json}: image {image_id!r} has a segment"
        require_fields(segment, SEGMENT_FIELDS, where)
        category = segment["category_id"]
        if category not in things and category not in stuff:
            raise ValueError(
                f"{where} of category {category!r}, which is not among the dataset's categories."
            )
        isthing = category in things
        category_id = things[category] if isthing else stuff[category]
        return {**segment, "category_id": category_id, "isthing": isthing}

    dicts: dict[object, dict] = {}
    for annotation in content["annotations"]:
        require_fields(annotation, ANNOTATION_FIELDS, f"{panoptic_json}: an annotation")
        image_id = annotation["image_id"]
        if image_id not in images:
            raise ValueError(f"{panoptic_json}: no image has the annotated id {image_id!r}.")
        if image_id in dicts:
            raise ValueError(f"{panoptic_json}: image {image_id!r} has two annotations.")
        image = images[image_id]
        dicts[image_id] = {
            "file_name": join_below(image_root, image["file_name"], panoptic_json),
            "image_id": image_id,
            "height": image["height"],
            "width": image["width"],
            "pan_seg_file_name": join_below(panoptic_root, annotation["file_name"], panoptic_json),
            "segments_info": [contiguous(s, image_id) for s in annotation["segments_info"]],
        }
    if len(dicts) < len(images):
        logger.warning(
            "%s: %d of %d images have no annotation and are left out.",
            panoptic_json,
            len(images) - len(dicts),
            len(images),
        )
    return list(dicts.values())


IMAGE_FIELDS = {"id": (int, str), "file_name": str, "height": int, "width": int}
ANNOTATION_FIELDS = {"image_id": (int, str), "file_name": str, "segments_info": list}
SEGMENT_FIELDS = {"id": int, "category_id": int}


def require_fields(entry: object, fields: dict, where: str) -> None:
    """Makes sure that an entry of the JSON is a dict with these keys, of these types.

    Raises:
        ValueError: it isn't.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is no dict: {str(entry)[:200]}")
    for key, kinds in fields.items():
        if not isinstance(entry.get(key), kinds):
            shown = {name: value for name, value in entry.items() if name != "segments_info"}
            problem = f"a wrong {key!r}" if key in entry else f"no {key!r}"
            raise ValueError(f"{where} has {problem}: {str(shown)[:200]}")


def join_below(root: str | Path, file_name: str, panoptic_json: str | Path) -> str:
    """The path of a file in a folder or below it.

    Raises:
        ValueError: the name leads elsewhere.
    """
    path = PurePosixPath(file_name.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise ValueError(
            f"{panoptic_json}: the file name {file_name!r} leaves its folder {root}. File names "
            "must be relative to the folder of images or of panoptic PNGs, without '..'."
        )
    return os.path.join(root, file_name)


def check_category(category: object, where: str | Path, *, isthing: bool | None = None) -> None:
    """Makes sure that a category has a whole ``id``, a ``name``, ``isthing``, and no odd ``color``.

    Args:
        category: an entry of ``categories``.
        where: the file, for messages.
        isthing: what it is where it doesn't say that; None: it has to.

    Raises:
        ValueError: something lacks or is odd.
    """
    said = f"{where}: category {quoted(category)}"
    if not isinstance(category, dict) or type(category.get("id")) is not int:
        raise ValueError(f"{said} has no 'id' that is a whole number.")
    if not isinstance(category.get("name"), str) or not category["name"]:
        raise ValueError(f"{said} has no 'name' that is a text.")
    isthing = category.get("isthing", isthing)
    # Not "0" or 0.0, which others read as a thing or as stuff.
    if not isinstance(isthing, int) or isthing not in (0, 1):
        raise ValueError(f"{said} must have 'isthing': 1 or true for things, 0 or false for stuff.")
    color = category.get("color")
    if color is None:
        return
    if not (
        isinstance(color, list)
        and len(color) == 3
        and all(type(value) is int and 0 <= value <= 255 for value in color)
    ):
        raise ValueError(f"{said}: 'color' must be [red, green, blue], each in 0 … 255.")


def _distinct_colors() -> Iterable[tuple[int, int, int]]:
    """Colours without end, neighbours far apart: hues a golden section from one to the next."""
    for i in itertools.count():
        red, green, blue = colorsys.hsv_to_rgb(i * 0.618034 % 1, 0.9 - i % 3 * 0.25, 0.95)
        yield round(255 * red), round(255 * green), round(255 * blue)


def _content(panoptic_json: str | Path) -> dict:
    """The parsed file; see ``_waiting``."""
    key, path = str(panoptic_json), PathManager.get_local_path(str(panoptic_json))
    state = os.stat(path)
    stamp = (state.st_mtime_ns, state.st_size)
    if key not in _waiting or _waiting[key][0] != stamp:
        _waiting[key] = (stamp, parse_panoptic_json(path))
    return _waiting[key][1]


def parse_panoptic_json(path: str) -> dict:
    """Reads a file with the three lists that a panoptic JSON has; their entries aren't looked at.

    Raises:
        ValueError: it is no JSON, or no panoptic one.
    """
    content = read_json(path)
    for key in ("categories", "images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(f"{path} is no panoptic JSON of COCO's kind: it has no list {key!r}.")
    first = next(iter(content["annotations"]), None)
    if isinstance(first, dict) and "segments_info" not in first and "category_id" in first:
        raise ValueError(
            f"{path} annotates instances, not panoptic segments: its annotations have no "
            "'segments_info'. detr-d2 prepare makes panoptic PNGs and their JSON of it."
        )
    return content

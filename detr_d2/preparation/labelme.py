"""Source: LabelMe's JSONs, one for each image.

Axes: H×W pixels; points are (x, y).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from detr_d2.data.messages import quoted
from detr_d2.preparation.background import REMEDY, Background, with_background
from detr_d2.preparation.categories import complete_categories, read_categories, read_json
from detr_d2.preparation.dataset import Source, write_panoptic
from detr_d2.preparation.errors import PreparationError, Report
from detr_d2.preparation.files import PairedImage, pair_with_images
from detr_d2.preparation.pictures import image_size
from detr_d2.preparation.regions import as_points, check_encoded, check_points, polygons_rle
from detr_d2.preparation.segments import Region, Segmentation, by_regions


def prepare_labelme(
    folder: str | Path,
    output: str | Path,
    *,
    images: str | Path | None = None,
    categories: str | Path | None = None,
    stuff: Iterable[str] = (),
    background: str | None = None,
    skip_errors: bool = False,
    workers: int = 1,
) -> Report:
    """Writes a panoptic dataset from LabelMe's JSONs.

    Args:
        folder: JSONs in it and below. The image of each is the one of the same name.
        output: the folder to make.
        images: a folder, where it is not the same; sub-folders are.
        categories: a file whose names are the labels, see ``read_categories``; without, labels are
            categories in order of first appearance, from id 1 on.
        stuff: labels that are stuff. Others are things, unless ``categories`` says otherwise.
        background: name of a category of stuff for all that has no shape, see
            ``prepare_instances``.
        skip_errors, workers: see ``write_panoptic``.

    Raises:
        PreparationError, OSError: see ``write_panoptic``; an option names an unknown label.
    """
    images = folder if images is None else images
    found = pair_with_images(folder, (".json",), "", images, "")
    problems, shapes_of = list(found.problems), {}
    for number, (name, json_name) in enumerate(found.pairs, start=1):
        try:
            shapes_of[number, name, json_name] = read_shapes(Path(folder, json_name))
        except PreparationError as error:
            problems.append(str(error))
    if problems and not skip_errors:
        raise PreparationError(problems[0])  # before the lack of labels that it may cause
    labels = [shape.get("label") for shapes in shapes_of.values() for shape in shapes[1]]
    known = _label_categories(labels, categories, set(stuff), folder)
    ids = {category["name"]: category["id"] for category in known}
    known, behind_all = with_background(known, background, categories or folder)
    annotated = [
        LabelMeImage(
            number, name, Path(images, name), Path(folder, json_name), *shapes, ids, behind_all
        )
        for (number, name, json_name), shapes in shapes_of.items()
    ]
    source = Source(known, annotated, problems, found.notes, REMEDY)
    return write_panoptic(source, output, skip_errors=skip_errors, workers=workers)


def _label_categories(
    labels: list, categories: str | Path | None, stuff: set[str], folder: str | Path
) -> list[dict]:
    if categories is not None:
        known = read_categories(categories, isthing=True)
    else:
        names = dict.fromkeys(label for label in labels if isinstance(label, str) and label)
        entries = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
        if not entries:
            raise PreparationError(f"{folder}: no shape has a label, and no categories are given")
        known = complete_categories(entries, folder, isthing=True)
    unknown = stuff - {category["name"] for category in known}
    if unknown:
        raise PreparationError(
            f"{categories or folder}: {quoted(min(unknown))} is to be stuff, and isn't there"
        )
    return [{**c, "isthing": int(c["isthing"] and c["name"] not in stuff)} for c in known]


def read_shapes(path: Path) -> tuple[tuple[Any, Any], list[dict]]:
    """Reads a JSON of LabelMe, and forgets the image that may be in it.

    Returns:
        Height and width, None where it doesn't tell, and the shapes, unchecked.

    Raises:
        PreparationError: it is none of LabelMe's.
    """
    content = read_json(path)
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise PreparationError(f"{path}: no JSON of LabelMe, it has no list of shapes")
    return (content.get("imageHeight"), content.get("imageWidth")), shapes


@dataclass(frozen=True)
class LabelMeImage(PairedImage):
    """An image and its JSON.

    Attributes:
        size: height and width as the JSON has them, or None.
        shapes: LabelMe's.
        category_ids: by label.
        background: what is seen where no shape is.
    """

    size: tuple[Any, Any]
    shapes: list[dict]
    category_ids: Mapping[str, int]
    background: Background

    def segmentation(self, is_thing: Mapping[int, bool]) -> Segmentation:
        """The shapes on top of one another; those of one group and label are one instance."""
        height, width = image_size(self.image_path)
        if self.size[0] not in (None, height) or self.size[1] not in (None, width):
            raise PreparationError(
                f"{self.annotation_path}: it is for {quoted(self.size[1])}×{quoted(self.size[0])} "
                f"pixels, its image has {width}×{height}"
            )
        instances: dict[tuple, list[dict]] = {}
        problems, encoded = [], 0
        for number, shape in enumerate(self.shapes):
            try:
                category_id = self._category_id(shape)
                rle = shape_rle(shape, height, width)
                encoded = check_encoded(encoded, rle)
            except PreparationError as error:
                label = quoted(shape.get("label"))
                where = f"{self.annotation_path}: shape number {number}"
                problems.append(f"{where} ({label}): {error}")
                continue
            group = shape.get("group_id")
            key = (category_id, number, None) if group is None else (category_id, None, str(group))
            instances.setdefault(key, []).append(rle)
        regions = [
            Region(coco_mask.merge(rles), category_id)
            for (category_id, *_), rles in instances.items()
        ]
        counts: Counter[str] = Counter()
        below = self.background.below(height, width, problems, counts)
        return by_regions(regions, is_thing, below, problems, counts)

    def _category_id(self, shape: dict) -> int:
        label = shape.get("label")
        if not isinstance(label, str) or label not in self.category_ids:
            raise PreparationError("no category has the name of its label")
        return self.category_ids[label]


def shape_rle(shape: dict, height: int, width: int) -> dict:
    """A polygon, rectangle or circle of LabelMe as an RLE of the image's size.

    Raises:
        PreparationError: it is of another type, or its points are wrong.
    """
    kind = shape.get("shape_type") or "polygon"  # LabelMe's first versions had nothing else
    if kind not in ("polygon", "rectangle", "circle"):
        raise PreparationError(
            f"its type is {quoted(kind)}; only polygon, rectangle and circle have an area here"
        )
    points = as_points(shape.get("points"))
    check_points(points, height, width)
    if kind == "polygon":
        return polygons_rle([points.ravel().tolist()], height, width)
    if len(points) != 2:
        raise PreparationError(f"a {kind} of {len(points)} points; it needs two")
    if kind == "rectangle":
        (left, top), (right, bottom) = points.tolist()
        corners = [left, top, right, top, right, bottom, left, bottom]
        return polygons_rle([corners], height, width)
    center, edge = points
    # From the centre to the middles of pixels.
    y = np.arange(height)[:, None] + 0.5 - center[1]
    x = np.arange(width) + 0.5 - center[0]
    inside = x**2 + y**2 <= np.square(edge - center).sum()
    return coco_mask.encode(np.asfortranarray(inside, np.uint8))

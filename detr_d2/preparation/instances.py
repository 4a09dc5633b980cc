"""Source: COCO's instance JSON, with or without semantic PNGs for what lies behind.

Axes: H×W pixels.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detr_d2.data.messages import quoted
from detr_d2.preparation.categories import complete_categories, read_categories, read_json
from detr_d2.preparation.dataset import Source, write_panoptic
from detr_d2.preparation.errors import PreparationError, Report
from detr_d2.preparation.pictures import check_size, read_label_image
from detr_d2.preparation.regions import check_encoded, region_rle
from detr_d2.preparation.segments import Region, Segmentation, by_regions
from detr_d2.preparation.semantic import (
    check_same_size,
    read_pixel_categories,
    semantic_segments,
)


def prepare_instances(
    json_file: str | Path,
    output: str | Path,
    *,
    semantic: str | Path | None = None,
    categories: str | Path | None = None,
    mapping: str | Path | None = None,
    ignore: Iterable[int] = (),
    skip_errors: bool = False,
    workers: int = 1,
) -> Report:
    """Writes a panoptic dataset from COCO's instance JSON.

    Args:
        json_file: polygons, RLEs, crowds.
        output: the folder to make.
        semantic: a folder of PNGs, named and sorted into sub-folders as the images. Their things
            are void where no annotation tells one from another.
        categories: a file, see ``read_categories``; without, those of the JSON. Things where it
            doesn't say otherwise.
        mapping, ignore: what pixels of the semantic PNGs are, see ``read_pixel_categories``.
        skip_errors, workers: see ``write_panoptic``.

    Raises:
        PreparationError, OSError: see ``write_panoptic``; the JSON is no instance JSON.
    """
    content = read_json(json_file)
    images, annotations = _lists_of(content, ("images", "annotations"), json_file)
    if categories is None:
        known = complete_categories(content.get("categories"), json_file, isthing=True)
    else:
        known = read_categories(categories, isthing=True)
    behind = None
    if semantic is not None:
        where = categories or json_file
        category_of = read_pixel_categories(known, where, mapping, ignore)
        # Which of several things a pixel belongs to, a semantic PNG can't tell.
        things = {category["id"] for category in known if category["isthing"]}
        void = {value: None for value, category in category_of.items() if category in things}
        behind = SemanticFolder(Path(semantic), {**category_of, **void})
    problems = []
    of_image: dict[Any, list] = {image["id"]: [] for image in images}
    for annotation in annotations:
        try:
            of_image[annotation.get("image_id")].append(annotation)
        except (KeyError, TypeError):  # unknown, or not even hashable
            problems.append(
                f"{json_file}: annotation {quoted(annotation.get('id'))} is of image "
                f"{quoted(annotation.get('image_id'))}, which is not there"
            )
    annotated = [
        InstancesImage(str(json_file), image, tuple(of_image[image["id"]]), behind)
        for image in images
    ]
    source = Source(known, annotated, problems)
    return write_panoptic(source, output, skip_errors=skip_errors, workers=workers)


def _lists_of(content: Any, keys: Iterable[str], where: str | Path) -> list[list[dict]]:
    lists = [content.get(key) if isinstance(content, dict) else None for key in keys]
    for key, entries in zip(keys, lists, strict=True):
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise PreparationError(f"{where}: no instance JSON of COCO, it has no list of {key}")
    for image in lists[0]:
        if not isinstance(image.get("id"), int | str):
            raise PreparationError(f"{where}: an image has the id {quoted(image.get('id'))}")
    return lists


@dataclass(frozen=True)
class SemanticFolder:
    """Semantic PNGs of images.

    Attributes:
        folder: holds them under the images' names.
        category_of: see ``read_pixel_categories``.
    """

    folder: Path
    category_of: Mapping[int, int | None]

    def segmentation(self, file_name: str, size: tuple[int, int]) -> Segmentation:
        """The stuff of an image of that name, height and width."""
        png = self.folder / f"{posixpath.splitext(file_name)[0]}.png"
        values = read_label_image(png)
        check_same_size(values, png, size)
        return semantic_segments(values, png, self.category_of)


@dataclass(frozen=True)
class InstancesImage:
    """An image and its annotations.

    Attributes:
        json_file: where they are from.
        image: COCO's description.
        annotations: COCO's, of this image.
        behind: what is seen where no annotation is.
    """

    json_file: str
    image: dict
    annotations: tuple[dict, ...]
    behind: SemanticFolder | None

    def segmentation(self, is_thing: Mapping[int, bool]) -> Segmentation:
        """The annotations on top of one another, and of the stuff."""
        height, width = self.image.get("height"), self.image.get("width")
        if type(height) is not int or type(width) is not int:
            raise PreparationError(f"{self.json_file}: its height and width are no whole numbers")
        check_size(height, width)
        below = Segmentation(np.zeros((height, width), np.int32), ())
        if self.behind is not None:
            below = self.behind.segmentation(self.image["file_name"], (height, width))
        regions, problems, encoded = [], [], 0
        for annotation in self.annotations:
            try:
                region = _region(annotation, is_thing, height, width)
                encoded = check_encoded(encoded, region.rle)
                regions.append(region)
            except PreparationError as error:
                problems.append(
                    f"{self.json_file}: image {quoted(self.image['id'])}, annotation "
                    f"{quoted(annotation.get('id'))}: {error}"
                )
        return by_regions(regions, is_thing, below, problems)


def _region(annotation: dict, is_thing: Mapping[int, bool], height: int, width: int) -> Region:
    category_id, iscrowd = annotation.get("category_id"), annotation.get("iscrowd", 0)
    if type(category_id) is not int or category_id not in is_thing:
        raise PreparationError(f"there is no category {quoted(category_id)}")
    if iscrowd not in (0, 1):
        raise PreparationError(f"iscrowd has to be 0 or 1, not {quoted(iscrowd)}")
    rle = region_rle(annotation.get("segmentation"), height, width)
    return Region(rle, category_id, bool(iscrowd))

"""A source of annotations: COCO's instance JSON, with or without semantic PNGs for the stuff.

Axes: H×W pixels.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detr_d2.data.panoptic_fields import flag, whole_number
from detr_d2.data.panoptic_fields import image_id as read_image_id
from detr_d2.data.prepare.background import REMEDY, Background, with_background
from detr_d2.data.prepare.category_list import (
    complete_categories,
    listed_categories,
    read_json,
    renaming_notes,
    without_unused_twins,
)
from detr_d2.data.prepare.crowds import crowd_notes
from detr_d2.data.prepare.dataset_writer import Source, write_panoptic
from detr_d2.data.prepare.prepared_segments import Region, Segmentation, by_regions
from detr_d2.data.prepare.problems import PreparationError, PreparationReport
from detr_d2.data.prepare.regions import check_encoded, region_rle, whole_polygons
from detr_d2.data.prepare.semantic_images import (
    check_same_size,
    read_pixel_categories,
    semantic_segments,
)
from detr_d2.data.prepare.source_files import existing_folder, found_name
from detr_d2.data.prepare.source_images import check_size, image_size, read_label_image
from detr_d2.file_io import quoted

_CRUMBS = "parts of fewer than three points were dropped from polygons"


def prepare_instances(
    json_file: str | Path,
    output: str | Path,
    *,
    images: str | Path | None = None,
    semantic: str | Path | None = None,
    categories: str | Path | None = None,
    mapping: str | Path | None = None,
    ignore: Iterable[int] = (),
    crowds_as_things: bool = False,
    background: str | None = None,
    ignore_exif: bool = False,
    skip_errors: bool = False,
    workers: int = 1,
) -> PreparationReport:
    """Writes a panoptic dataset from COCO's instance JSON.

    Args:
        json_file: has polygons, RLEs and crowds.
        output: the folder to make.
        images: the folder of images; by default, that of the JSON. Sizes that the JSON lacks, and
            the right spelling of file names, are looked up there.
        semantic: a folder of PNGs with the names and sub-folders of the images. Their pixels of
            things are void, as they don't separate one thing from another.
        categories: a file, see ``read_categories``; without it, those of the JSON. Categories
            without ``isthing`` are things.
        mapping, ignore: the meaning of pixels in semantic PNGs, see ``read_pixel_categories``.
        crowds_as_things: read crowds of things as single objects. Some tools mark everything that
            is drawn with a brush as a crowd.
        background: name of a category of stuff for all pixels without annotation. If one of an
            image's annotations is left out, they stay void, since it may be there.
        ignore_exif: take images as they are stored, not turned upright by their EXIF tags.
        skip_errors, workers: see ``write_panoptic``.

    Raises:
        PreparationError, OSError: see ``write_panoptic``; the JSON is no instance JSON, or options
            contradict each other.
    """
    if background is not None and semantic is not None:
        raise PreparationError(
            "--background is for data without --semantic, whose PNGs say what is behind: give the "
            "background a category of stuff, and its pixels that id"
        )
    content = read_json(json_file)
    described, annotations = _lists_of(content, ("images", "annotations"), json_file)
    where = categories or json_file
    listed = content.get("categories") if categories is None else listed_categories(categories)
    used = {whole_number(annotation.get("category_id")) for annotation in annotations}
    listed, notes = without_unused_twins(listed, used)
    known = complete_categories(listed, where, isthing=True)
    notes += renaming_notes(listed, known)
    known, behind_all = with_background(known, background, where)
    behind = None
    if semantic is not None:
        category_of = read_pixel_categories(known, where, mapping, ignore)
        # A semantic PNG can't tell which of several things a pixel belongs to.
        things = {category["id"] for category in known if category["isthing"]}
        void = {value: None for value, category in category_of.items() if category in things}
        behind = SemanticFolder(Path(semantic), {**category_of, **void})
    folder = Path(json_file).parent if images is None else existing_folder(images)
    of_image, problems = _by_image(annotations, described, json_file)
    annotated = [
        InstancesImage(
            str(json_file),
            {**image, "file_name": _file_name(folder, image.get("file_name"))},
            tuple(of_image[image["id"]]),
            behind,
            folder,
            crowds_as_things,
            behind_all,
            ignore_exif,
        )
        for image in described
    ]
    if not crowds_as_things:
        notes += crowd_notes(annotations, known)
    source = Source(known, annotated, problems, notes)
    if semantic is None:
        source = replace(source, void_remedy=REMEDY)
    return write_panoptic(source, output, skip_errors=skip_errors, workers=workers)


def _lists_of(content: Any, keys: Iterable[str], where: str | Path) -> list[list[dict]]:
    lists: list[Any] = [content.get(key) if isinstance(content, dict) else None for key in keys]
    for key, entries in zip(keys, lists, strict=True):
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise PreparationError(f"{where}: no instance JSON of COCO, it has no list of {key}")
    for image in lists[0]:
        if read_image_id(image.get("id")) is None:
            raise PreparationError(f"{where}: an image has the id {quoted(image.get('id'))}")
    return [[{**image, "id": read_image_id(image["id"])} for image in lists[0]], *lists[1:]]


def _by_image(
    annotations: list[dict], images: list[dict], where: str | Path
) -> tuple[dict[int | str, list[dict]], list[str]]:
    """The annotations of each image, by its id, and a problem for each one without an image."""
    of_image: dict[int | str, list[dict]] = {image["id"]: [] for image in images}
    problems = []
    for annotation in annotations:
        image_id = read_image_id(annotation.get("image_id"))
        if image_id in of_image:
            of_image[image_id].append(annotation)
        else:
            problems.append(
                f"{where}: annotation {quoted(annotation.get('id'))} is of image "
                f"{quoted(annotation.get('image_id'))}, which is not there"
            )
    return of_image, problems


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
        stem, _ = posixpath.splitext(file_name.replace("\\", "/"))
        png = self.folder / found_name(self.folder, f"{stem}.png")
        values = read_label_image(png)
        check_same_size(values, png, size)
        return semantic_segments(values, png, self.category_of)


@dataclass(frozen=True)
class InstancesImage:
    """An image and its annotations.

    Attributes:
        json_file: the file of the annotations.
        image: COCO's description.
        annotations: COCO's, of this image.
        behind: semantic PNGs, which are seen where no annotation is.
        folder: where the image is, for its size.
        crowds_as_things, ignore_exif: see ``prepare_instances``.
        background: what is seen instead if there is no ``behind``.
    """

    json_file: str
    image: dict
    annotations: tuple[dict, ...]
    behind: SemanticFolder | None
    folder: Path = Path()
    crowds_as_things: bool = False
    background: Background = Background(None)
    ignore_exif: bool = False

    def segmentation(self, is_thing: Mapping[int, bool]) -> Segmentation:
        """The annotations, which lie on top of each other and of what is behind."""
        height, width = self._size()
        regions, problems, encoded = [], [], 0
        counts: Counter[str] = Counter()
        for annotation in self.annotations:
            try:
                region, crumbs = self._region(annotation, is_thing, height, width)
                encoded = check_encoded(encoded, region.rle)
                regions.append(region)
                counts += Counter({_CRUMBS: crumbs})
            except PreparationError as error:
                problems.append(
                    f"{self.json_file}: image {quoted(self.image['id'])}, annotation "
                    f"{quoted(annotation.get('id'))}: {error}"
                )
        if self.behind is not None:
            below = self.behind.segmentation(self.image["file_name"], (height, width))
        else:
            below = self.background.below(height, width, problems, counts)
        return by_regions(regions, is_thing, below, problems, counts)

    def _size(self) -> tuple[int, int]:
        """Height and width: the JSON's, or the image's where the JSON has none."""
        told = self.image.get("height"), self.image.get("width")
        height, width = map(whole_number, told)
        if height is not None and width is not None and height > 0 and width > 0:
            check_size(height, width)
            return height, width
        try:
            return image_size(self.folder / self.image["file_name"], self.ignore_exif)
        except PreparationError as error:
            raise PreparationError(
                f"{self.json_file}: its height and width are {quoted(told[0])} and "
                f"{quoted(told[1])}, and its file doesn't tell them: {error} "
                "(--images FOLDER says where the images are)"
            ) from error

    def _region(
        self, annotation: dict, is_thing: Mapping[int, bool], height: int, width: int
    ) -> tuple[Region, int]:
        """The pixels of an annotation, and how many of its parts were dropped as too small."""
        category_id = whole_number(annotation.get("category_id"))
        if category_id not in is_thing:
            raise PreparationError(f"there is no category {quoted(annotation.get('category_id'))}")
        iscrowd = flag(annotation.get("iscrowd", 0))
        if iscrowd is None:
            raise PreparationError(
                f"iscrowd has to be 0 or 1, not {quoted(annotation.get('iscrowd'))}"
            )
        segmentation, crumbs = whole_polygons(annotation.get("segmentation"))
        rle = region_rle(segmentation, height, width)
        return Region(rle, category_id, iscrowd and not self.crowds_as_things), crumbs


def _file_name(folder: Path, file_name: Any) -> Any:
    """The spelling of a name on the disk. What is no text stays, and is refused later."""
    return found_name(folder, file_name) if isinstance(file_name, str) else file_name

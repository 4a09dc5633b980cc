"""A source of annotations: semantic label images, whose pixels are classes.

They show stuff, but separate things only if these don't touch each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detr_d2.data.prepare.category_list import read_categories, read_json
from detr_d2.data.prepare.dataset_writer import Source, write_panoptic
from detr_d2.data.prepare.prepared_segments import (
    PreparedSegment,
    Segmentation,
    by_pixel_value,
    split_into_components,
)
from detr_d2.data.prepare.problems import PreparationError, PreparationReport
from detr_d2.data.prepare.source_files import LABEL_EXTENSIONS, PairedImage, pair_with_images
from detr_d2.data.prepare.source_images import explain_turn, image_size, read_label_image

# What components that are too small become.
CRUMBS = ("void", "crowd")
# Components of fewer pixels are rarely real things.
_TINY = 5
_UNDECIDED = (
    f"of them have fewer than {_TINY} pixels; --min-area N makes such crumbs void or a crowd"
)


def prepare_semantic(
    folder: str | Path,
    output: str | Path,
    *,
    images: str | Path,
    categories: str | Path,
    mapping: str | Path | None = None,
    ignore: Iterable[int] = (),
    things: Iterable[int] = (),
    min_area: int = 0,
    crumbs: str = "void",
    png_suffix: str = "",
    image_suffix: str = "",
    ignore_exif: bool = False,
    skip_errors: bool = False,
    workers: int = 1,
) -> PreparationReport:
    """Writes a panoptic dataset from semantic PNGs.

    Args:
        folder: has PNGs (or TIFFs) with the names and sub-folders of the images.
        output: the folder to make.
        images: the folder of images.
        categories: a file, see ``read_categories``. Categories without ``isthing`` are stuff.
        mapping, ignore: see ``read_pixel_categories``.
        things: ids of categories; each of their connected components is an instance.
        min_area, crumbs: components of fewer pixels become "void", or a "crowd" of their category.
        png_suffix, image_suffix: the part before the ending in which the names of PNGs and images
            differ.
        ignore_exif: take images as they are stored, not turned upright by their EXIF tags.
        skip_errors, workers: see ``write_panoptic``.

    Raises:
        PreparationError, OSError: see ``write_panoptic``; an option contradicts the categories.
    """
    known = read_categories(categories, isthing=False)
    things = frozenset(things)
    if min_area < 0 or crumbs not in CRUMBS:
        raise PreparationError(
            f"the least area has to be 0 or more and crumbs {' or '.join(CRUMBS)}, not {min_area} "
            f"and {crumbs}"
        )
    if min_area and not things:
        raise PreparationError(
            "a least area is for connected components, which only things have: name the categories "
            "with --things"
        )
    unknown = things - {category["id"] for category in known}
    if unknown:
        raise PreparationError(f"{categories}: no category has the id {min(unknown)}")
    for category in known:
        if category["isthing"] and category["id"] not in things:
            raise PreparationError(
                f"{categories}: category {category['id']} is a thing, and semantic PNGs don't tell "
                "one thing from another. Take each connected component for one (--things "
                f"{category['id']}), or say isthing: 0."
            )
    known = [{**category, "isthing": int(category["id"] in things)} for category in known]
    category_of = read_pixel_categories(known, categories, mapping, ignore)
    found = pair_with_images(folder, LABEL_EXTENSIONS, png_suffix, images, image_suffix)
    annotated = SemanticImage.of_pairs(
        found.pairs,
        images,
        folder,
        ignore_exif=ignore_exif,
        category_of=category_of,
        things=things,
        min_area=min_area,
        crumbs_are_crowds=crumbs == "crowd",
    )
    source = Source(known, annotated, found.problems, found.notes)
    return write_panoptic(source, output, skip_errors=skip_errors, workers=workers)


def read_pixel_categories(
    categories: list[dict],
    where: str | Path,
    mapping: str | Path | None,
    ignore: Iterable[int],
) -> dict[int, int | None]:
    """What pixel values stand for: ids of categories, or None for void.

    Args:
        categories: of the dataset.
        where: their file.
        mapping: a JSON file, ``{"pixel value": id of a category, or null}``; without it, pixel
            values are ids.
        ignore: more values that are void.

    Raises:
        OSError, PreparationError: the mapping is wrong.
    """
    ids = {category["id"] for category in categories}
    category_of: dict[int, int | None] = {category_id: category_id for category_id in ids}
    if mapping is not None:
        content = read_json(mapping)
        pairs = content.items() if isinstance(content, dict) else [(content, content)]
        for value, category_id in pairs:
            known = category_id is None or type(category_id) is int and category_id in ids
            if not (isinstance(value, str) and value.isdecimal() and known):
                raise PreparationError(
                    f'{mapping}: has to be {{"pixel value": id of a category or null, …}}, with '
                    f"the ids of {where}"
                )
        category_of = {int(value): category_id for value, category_id in content.items()}
    return {**category_of, **dict.fromkeys(ignore)}


@dataclass(frozen=True)
class SemanticImage(PairedImage):
    """An image and its semantic PNG.

    Attributes:
        category_of: see ``read_pixel_categories``.
        things, min_area: see ``prepare_semantic``.
        crumbs_are_crowds: see ``split_into_components``.
    """

    category_of: Mapping[int, int | None]
    things: frozenset[int]
    min_area: int
    crumbs_are_crowds: bool

    def segmentation(self, is_thing: Mapping[int, bool]) -> Segmentation:
        """Stuff, and connected components of things."""
        png = self.annotation_path
        values = read_label_image(png)
        check_size_of_image(values, self)
        segmentation = semantic_segments(values, png, self.category_of)
        result = split_into_components(
            segmentation,
            self.things,
            min_area=self.min_area,
            crumbs_are_crowds=self.crumbs_are_crowds,
        )
        if self.min_area:
            return result
        areas = np.bincount(result.labels.ravel(), minlength=len(result.segments) + 1)[1:]
        tiny = sum(
            segment.instance is not None and area < _TINY
            for segment, area in zip(result.segments, areas.tolist(), strict=True)
        )
        return replace(result, counts=Counter(result.counts) + Counter({_UNDECIDED: tiny}))


def check_size_of_image(values: np.ndarray, pair: PairedImage) -> None:
    """Compares a label image with the image beside it.

    Raises:
        PreparationError: they disagree, or the image can't be read.
    """
    size = image_size(pair.image_path, pair.ignore_exif)
    try:
        check_same_size(values, pair.annotation_path, size)
    except PreparationError as error:
        reason = explain_turn(pair.image_path, values.shape, pair.ignore_exif)
        raise PreparationError(f"{error}{reason}") from error


def check_same_size(values: np.ndarray, png: Path, size: tuple[int, int]) -> None:
    """Compares a label image with the height and width of its image.

    Raises:
        PreparationError: they disagree.
    """
    if values.shape != size:
        (height, width), (image_height, image_width) = values.shape, size
        raise PreparationError(
            f"{png} has {width}×{height} pixels, its image {image_width}×{image_height}"
        )


def semantic_segments(
    values: np.ndarray, png: Path, category_of: Mapping[int, int | None]
) -> Segmentation:
    """One segment for each category of an image, things and stuff alike.

    Args:
        values: H×W integers.
        png: their file, for messages.
        category_of: see ``read_pixel_categories``.

    Raises:
        PreparationError: a value stands for nothing.
    """

    def segment_of(value: int) -> PreparedSegment | None:
        if value not in category_of:
            raise PreparationError(
                f"{png}: a pixel has the value {value}, which stands for no category; "
                f"--ignore {value} makes it void"
            )
        category_id = category_of[value]
        return None if category_id is None else PreparedSegment(category_id)

    return by_pixel_value(values, segment_of)

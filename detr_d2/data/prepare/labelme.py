"""A source of annotations: LabelMe's JSONs, one for each image.

Axes: H×W pixels; points are (x, y).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from detr_d2.data.prepare.background import REMEDY, Background, with_background
from detr_d2.data.prepare.category_list import complete_categories, read_categories, read_json
from detr_d2.data.prepare.dataset_writer import Source, write_panoptic
from detr_d2.data.prepare.labelme_shapes import shape_rle
from detr_d2.data.prepare.prepared_segments import Region, Segmentation, by_regions
from detr_d2.data.prepare.problems import PreparationError, PreparationReport
from detr_d2.data.prepare.regions import check_encoded
from detr_d2.data.prepare.source_files import PairedImage, pair_with_images
from detr_d2.data.prepare.source_images import explain_turn, image_size
from detr_d2.file_io import quoted


def prepare_labelme(
    folder: str | Path,
    output: str | Path,
    *,
    images: str | Path | None = None,
    categories: str | Path | None = None,
    stuff: Iterable[str] = (),
    ignore: Iterable[str] = (),
    background: str | None = None,
    ignore_exif: bool = False,
    skip_errors: bool = False,
    workers: int = 1,
) -> PreparationReport:
    """Writes a panoptic dataset from LabelMe's JSONs.

    Args:
        folder: has JSONs, also in sub-folders. A JSON has the name of its image.
        output: the folder to make.
        images: the folder of images, if it is another one. It has the same sub-folders.
        categories: a file whose names are the labels, see ``read_categories``; without it, labels
            become categories in the order in which they appear, from id 1 on.
        stuff: labels that are stuff. Others are things, unless ``categories`` says otherwise.
        ignore: labels whose shapes are void. They cover what is larger.
        background: name of a category of stuff for all pixels without a shape, see
            ``prepare_instances``.
        ignore_exif: take images as they are stored, not turned upright by their EXIF tags.
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
        raise PreparationError(problems[0])  # it may be the reason why labels are missing
    given = (shape.get("label") for _, shapes in shapes_of.values() for shape in shapes)
    labels = [label for label in given if isinstance(label, str) and label.strip()]
    ignored = set(ignore)
    known = _label_categories(
        [label for label in labels if not _is_in(label, ignored)], categories, set(stuff), folder
    )
    category_ids = _ids_of_labels(labels, known, ignored)
    known, behind_all = with_background(known, background, categories or folder)
    annotated = [
        LabelMeImage(
            number,
            name,
            Path(images, name),
            Path(folder, json_name),
            *shapes,
            category_ids,
            behind_all,
            ignore_exif=ignore_exif,
        )
        for (number, name, json_name), shapes in shapes_of.items()
    ]
    notes = [*found.notes, *_label_notes(labels, category_ids, known, ignored)]
    source = Source(known, annotated, problems, notes, REMEDY)
    return write_panoptic(source, output, skip_errors=skip_errors, workers=workers)


def _label_categories(
    labels: list[str], categories: str | Path | None, stuff: set[str], folder: str | Path
) -> list[dict]:
    if categories is not None:
        known = read_categories(categories, isthing=True)
    else:
        names = dict.fromkeys(label.strip() for label in labels)
        entries = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
        if not entries:
            raise PreparationError(f"{folder}: no shape has a label, and no categories are given")
        known = complete_categories(entries, folder, isthing=True)
    unknown = stuff - {category["name"] for category in known}
    if unknown:
        raise PreparationError(
            f"{categories or folder}: {quoted(min(unknown))} is to be stuff, but is no label"
        )
    return [{**c, "isthing": int(c["isthing"] and c["name"] not in stuff)} for c in known]


def _is_in(label: str, labels: Container[str]) -> bool:
    """Whether a label is among others, with spaces at its ends or without."""
    return label in labels or label.strip() in labels


def _ids_of_labels(
    labels: list[str], categories: list[dict], ignored: set[str]
) -> dict[str, int | None]:
    """The category of each label that has one, or None where the label is ignored."""
    ids = {category["name"]: category["id"] for category in categories}
    found: dict[str, int | None] = {}
    for label in labels:
        if _is_in(label, ignored):
            found[label] = None
        elif _is_in(label, ids):
            found[label] = ids[label if label in ids else label.strip()]
    return found


def _label_notes(
    labels: list[str],
    category_ids: Mapping[str, int | None],
    categories: list[dict],
    ignored: set[str],
) -> list[str]:
    """Notes on labels that may not be what was meant."""
    names = {category["name"] for category in categories}
    counts = Counter(labels)
    notes = []
    for label, category_id in category_ids.items():
        if category_id is not None and label not in names:
            notes.append(f"{counts[label]} shapes of {quoted(label)} are {quoted(label.strip())}")
    for label in sorted(ignored - {label.strip() for label in labels} - set(labels)):
        notes.append(f"{quoted(label)} is to be ignored, but no shape has this label")
    marked = [quoted(n) for n in sorted(names) if len(n) > 1 and n[0] == n[-1] == "_"]
    if marked:
        notes.append(
            f"{' and '.join(marked)} are classes as others are; --ignore makes such labels void"
        )
    return notes


def read_shapes(path: Path) -> tuple[tuple[Any, Any], list[dict]]:
    """Reads a JSON of LabelMe, without the image that it may hold.

    Returns:
        Height and width, which may be None, and the unchecked shapes.

    Raises:
        PreparationError: it is no JSON of LabelMe.
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
        category_ids: by label; None if its shapes are void.
        background: what is seen where no shape is.
    """

    size: tuple[Any, Any]
    shapes: list[dict]
    category_ids: Mapping[str, int | None]
    background: Background

    def segmentation(self, is_thing: Mapping[int, bool]) -> Segmentation:
        """The shapes, on top of each other. Those of one group and label are one instance."""
        height, width = image_size(self.image_path, self.ignore_exif)
        if self.size[0] not in (None, height) or self.size[1] not in (None, width):
            reason = explain_turn(self.image_path, tuple(self.size), self.ignore_exif)
            raise PreparationError(
                f"{self.annotation_path}: it is for {quoted(self.size[1])}×{quoted(self.size[0])} "
                f"pixels, its image has {width}×{height}{reason}"
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
        void = sum(region.category_id is None for region in regions)
        counts = Counter({"shapes are void, as their labels are ignored": void} if void else {})
        below = self.background.below(height, width, problems, counts)
        return by_regions(regions, is_thing, below, problems, counts)

    def _category_id(self, shape: dict) -> int | None:
        label = shape.get("label")
        if not isinstance(label, str) or label not in self.category_ids:
            raise PreparationError("no category has the name of its label")
        return self.category_ids[label]

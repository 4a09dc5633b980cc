"""A source of annotations: label images as Cityscapes has them (``*_instanceIds.png``).

A pixel of an instance is category·1000 + number of the instance. A pixel below 1000 is the category
itself: stuff, or a crowd of things that nobody separated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from detr_d2.data.prepare.category_list import complete_categories, read_categories
from detr_d2.data.prepare.cityscapes_classes import NUM_LABELS, cityscapes_categories
from detr_d2.data.prepare.dataset_writer import Source, write_panoptic
from detr_d2.data.prepare.prepared_segments import PreparedSegment, Segmentation, by_pixel_value
from detr_d2.data.prepare.problems import PreparationError, PreparationReport
from detr_d2.data.prepare.semantic_images import check_size_of_image
from detr_d2.data.prepare.source_files import LABEL_EXTENSIONS, PairedImage, pair_with_images
from detr_d2.data.prepare.source_images import read_label_image


def prepare_cityscapes(
    folder: str | Path,
    output: str | Path,
    *,
    images: str | Path,
    categories: str | Path | None = None,
    ignore: Iterable[int] = (),
    png_suffix: str = "_gtFine_instanceIds",
    image_suffix: str = "_leftImg8bit",
    ignore_exif: bool = False,
    skip_errors: bool = False,
    workers: int = 1,
) -> PreparationReport:
    """Writes a panoptic dataset from PNGs whose pixels are category·1000 + instance.

    Args:
        folder: has PNGs (or TIFFs, which have room for 32 bits), also in sub-folders.
        output: the folder to make.
        images: the folder of images.
        categories: a file that also says which are things, see ``read_categories``; without it, the
            19 of Cityscapes, whose other labels are void.
        ignore: ids of categories, known or not, that are void.
        png_suffix, image_suffix: the part before the ending in which the names of PNGs and images
            differ.
        ignore_exif: take images as they are stored, not turned upright by their EXIF tags.
        skip_errors, workers: see ``write_panoptic``.

    Raises:
        PreparationError, OSError: see ``write_panoptic``.
    """
    void = set(ignore)
    if categories is None:
        known = complete_categories(cityscapes_categories(), "Cityscapes")
        void |= set(range(NUM_LABELS)) - {category["id"] for category in known}
    else:
        known = read_categories(categories)
    found = pair_with_images(folder, LABEL_EXTENSIONS, png_suffix, images, image_suffix)
    annotated = CityscapesImage.of_pairs(
        found.pairs, images, folder, void=frozenset(void), ignore_exif=ignore_exif
    )
    source = Source(known, annotated, found.problems, found.notes)
    return write_panoptic(source, output, skip_errors=skip_errors, workers=workers)


@dataclass(frozen=True)
class CityscapesImage(PairedImage):
    """An image and its PNG.

    Attributes:
        void: ids of categories that are void.
    """

    void: frozenset[int]

    def segmentation(self, is_thing: Mapping[int, bool]) -> Segmentation:
        """Stuff, crowds and instances."""
        png = self.annotation_path
        values = read_label_image(png)
        check_size_of_image(values, self)

        def segment_of(value: int) -> PreparedSegment | None:
            category_id, instance = divmod(value, 1000) if value >= 1000 else (value, None)
            if category_id in self.void:
                return None
            if category_id not in is_thing:
                raise PreparationError(
                    f"{png}: a pixel has the value {value}, which is of no category; "
                    f"--ignore {category_id} makes it void"
                )
            if not is_thing[category_id]:
                return PreparedSegment(category_id)
            return PreparedSegment(category_id, iscrowd=instance is None, instance=instance)

        return by_pixel_value(values, segment_of)

"""The JSON on its own: what it contradicts itself in, before any picture is read.

The reader of ``detr_d2.data`` stops at the first fault; this goes through all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from detr_d2.checking.findings import Finding
from detr_d2.data.messages import quoted
from detr_d2.data.panoptic_json import (
    ANNOTATION_FIELDS,
    IMAGE_FIELDS,
    SEGMENT_FIELDS,
    check_category,
    join_below,
    require_fields,
)


@dataclass(frozen=True)
class ImageTask:
    """An image whose files are to be looked at.

    Attributes:
        image_path, png_path: its files.
        height, width: its size by the JSON.
        segments: the JSON's dicts, each with a whole ``id`` and ``category_id``, ids once each.
    """

    image_path: str
    png_path: str
    height: int
    width: int
    segments: list[dict]


@dataclass
class AnnotationCheck:
    """Goes through the lists of a panoptic JSON.

    Attributes:
        panoptic_json: the file, for messages.
        image_root, panoptic_root: where file names start.
        num_queries: of the model.
        known_ids: categories of the dataset as it is registered; None: those of the JSON.
        categories: those that make sense, by id.
        num_segments: those that can be learned from, by category.
    """

    panoptic_json: str
    image_root: str
    panoptic_root: str
    num_queries: int
    known_ids: Collection[int] | None = None
    categories: dict[int, dict] = field(default_factory=dict)
    num_segments: dict[int, int] = field(default_factory=dict)

    def check(self, content: dict, tasks: list[ImageTask]) -> Iterator[Finding]:
        """Gives what is wrong, and appends the images whose files can be looked at to ``tasks``."""
        yield from self._check_categories(content["categories"])
        images: dict[int | str, dict] = {}
        yield from self._check_images(content["images"], images)
        yield from self._check_annotations(content["annotations"], images, tasks)
        for category_id, count in self.num_segments.items():
            if count == 0:
                name = self.categories.get(category_id, {}).get("name")
                yield Finding("class_without_examples", self.panoptic_json, quoted(name))

    def _check_categories(self, categories: list) -> Iterator[Finding]:
        names = set()
        for category in categories:
            isthing = category.get("isthing") if isinstance(category, dict) else 0
            if not isinstance(isthing, int) or isthing not in (0, 1):
                yield self._finding("isthing_not_boolean", category)
                category = {**category, "isthing": 0}
            try:
                check_category(category, self.panoptic_json)
            except ValueError as error:
                yield self._malformed(error)
                continue
            if category["id"] in self.categories or category["name"] in names:
                yield self._finding("duplicate_category", category)
            self.categories.setdefault(category["id"], category)
            names.add(category["name"])
        if self.known_ids is None:
            self.known_ids = self.categories.keys()
        self.num_segments.update(dict.fromkeys(self.known_ids, 0))

    def _check_images(self, given: list, images: dict) -> Iterator[Finding]:
        names = set()
        for image in given:
            try:
                require_fields(image, IMAGE_FIELDS, f"{self.panoptic_json}: an image")
                path = join_below(self.image_root, image["file_name"], self.panoptic_json)
            except ValueError as error:
                yield self._malformed(error)
                continue
            if image["id"] in images:
                yield self._finding("duplicate_image_id", image)
                continue
            if path in names:
                yield self._finding("duplicate_file_name", image)
            images[image["id"]] = image
            names.add(path)

    def _check_annotations(
        self, given: list, images: dict, tasks: list[ImageTask]
    ) -> Iterator[Finding]:
        names, annotated = set(), set()
        for annotation in given:
            try:
                require_fields(
                    annotation, ANNOTATION_FIELDS, f"{self.panoptic_json}: an annotation"
                )
                path = join_below(self.panoptic_root, annotation["file_name"], self.panoptic_json)
            except ValueError as error:
                yield self._malformed(error)
                continue
            image_id, shown = annotation["image_id"], {**annotation, "segments_info": "…"}
            if image_id not in images:
                yield self._finding("annotation_without_image", shown)
                continue
            if image_id in annotated:
                yield self._finding("duplicate_annotation", shown)
                continue
            if path in names:
                yield self._finding("duplicate_file_name", shown)
            annotated.add(image_id)
            names.add(path)
            segments: list[dict] = []
            yield from self._check_segments(annotation["segments_info"], path, segments)
            image = images[image_id]
            image_path = join_below(self.image_root, image["file_name"], self.panoptic_json)
            tasks.append(ImageTask(image_path, path, image["height"], image["width"], segments))
        for image_id in images.keys() - annotated:
            yield self._finding("image_without_annotation", images[image_id])

    def _check_segments(self, given: list, path: str, segments: list) -> Iterator[Finding]:
        ids = set()
        for segment in given:
            try:
                require_fields(segment, SEGMENT_FIELDS, f"{path}: a segment")
            except ValueError as error:
                yield self._malformed(error)
                continue
            if segment["id"] in ids:
                yield Finding("duplicate_segment_id", path, quoted(segment))
                continue
            if segment["category_id"] not in self.num_segments:
                yield Finding("unknown_category", path, quoted(segment))
            elif not segment.get("iscrowd"):
                self.num_segments[segment["category_id"]] += 1
            ids.add(segment["id"])
            segments.append(segment)
        if not given:
            yield Finding("empty_image", path, "no segments")
        targets = sum(not segment.get("iscrowd") for segment in segments)
        if targets > self.num_queries:
            yield Finding("too_many_segments", path, f"{targets}, above {self.num_queries}")

    def _finding(self, kind: str, entry: object) -> Finding:
        return Finding(kind, self.panoptic_json, quoted(entry))

    def _malformed(self, error: ValueError) -> Finding:
        return Finding("malformed_entry", self.panoptic_json, str(error))

"""Reads the lists of a panoptic JSON entry by entry, and finds their problems.

Training and evaluation stop at the first problem; a check collects all. Both use this module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from detr_d2.data.files_below import find_below
from detr_d2.data.panoptic_fields import (
    CATEGORY_FIELDS,
    SEGMENT_FIELDS,
    SIZE_FIELDS,
    annotation_fields,
    image_fields,
    image_id_reader,
    isthing_field,
    read_fields,
    whole_number,
)
from detr_d2.file_io import quoted, read_json


@dataclass(frozen=True)
class Problem:
    """A reason why a file can't be used.

    Attributes:
        kind: one of the kinds of findings that a check knows.
        message: names the file, the list and the entry, and says what is wrong.
    """

    kind: str
    message: str


def read_panoptic_lists(path: str | Path) -> dict:
    """Reads a file with the three lists of a panoptic JSON. Their entries are not checked.

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
            "'segments_info'. detr-d2 prepare makes panoptic PNGs and a panoptic JSON of it."
        )
    return content


Tell = Callable[[Problem], None]


def stop(problem: Problem) -> None:
    """Raises a problem as an error; checks pass a function that collects problems instead.

    Raises:
        ValueError: always, with its message.
    """
    raise ValueError(problem.message)


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and its annotation.

    Attributes:
        image_id: a number, or a text in files that have such ids.
        file_name, png_name: the paths of its files on the disk.
        height, width: of the image, by the JSON.
        segments: the JSON's dicts, whose ``id``, ``category_id`` and ``iscrowd`` are ints.
    """

    image_id: int | str
    file_name: str
    png_name: str
    height: int
    width: int
    segments: list[dict]


class PanopticEntries:
    """Goes through the lists of a panoptic JSON; reports and leaves out entries with problems."""

    def __init__(self, content: dict, where: str | Path, tell: Tell = stop) -> None:
        """
        Args:
            content: the parsed file.
            where: its name, for messages.
            tell: is called with each problem.
        """
        self._content, self._where, self._tell = content, where, tell
        self._image_id = image_id_reader(
            entry.get(key)
            for name, key in (("images", "id"), ("annotations", "image_id"))
            for entry in content[name]
            if isinstance(entry, dict)
        )

    def categories(self) -> list[dict]:
        """The valid categories, with ``isthing`` as a bool. No id or name occurs twice.

        Of several categories with one name, those without segments are left out: some tools export
        such a category as the root of the others.
        """
        if not self._content["categories"]:
            self._problem("malformed_entry", "the list 'categories' is empty.")
        kept, _ = self._without_unused_namesakes()
        return read_categories_list(kept, self._where, self._tell)

    def unused_namesakes(self) -> list[dict]:
        """The categories that are left out because another one has their name and is used."""
        return self._without_unused_namesakes()[1]

    def _without_unused_namesakes(self) -> tuple[list, list[dict]]:
        given = self._content["categories"]
        names = [c["name"] for c in given if isinstance(c, dict) and isinstance(c.get("name"), str)]
        if len(set(names)) == len(names):  # nearly always; then segments needn't be read
            return given, []
        return without_unused_namesakes(given, self._used_category_ids())

    def _used_category_ids(self) -> set[int | None]:
        annotations = (a for a in self._content["annotations"] if isinstance(a, dict))
        lists = (annotation.get("segments_info") for annotation in annotations)
        segments = (s for listed in lists if isinstance(listed, list) for s in listed)
        return {whole_number(s.get("category_id")) for s in segments if isinstance(s, dict)}

    def images(self, image_root: str | Path) -> dict[int | str, dict]:
        """The images by id; ``path`` is that of the file."""
        fields = {**image_fields(self._image_id), **SIZE_FIELDS}
        images: dict[int | str, dict] = {}
        for image in self._entries("images", fields, image_root):
            if image["id"] in images:
                self._problem("duplicate_image_id", f"two images have the id {image['id']!r}.")
                continue
            images[image["id"]] = image
        return images

    def annotated_images(
        self,
        images: dict[int | str, dict],
        panoptic_root: str | Path,
        category_ids: Collection[int],
    ) -> Iterator[AnnotatedImage]:
        """The images that have an annotation, in the order of the annotations.

        Args:
            images: as ``images()`` gives them.
            panoptic_root: the folder that the PNGs' file names start from.
            category_ids: of the dataset.
        """
        annotated = set()
        fields = annotation_fields(self._image_id)
        for annotation in self._entries("annotations", fields, panoptic_root):
            image_id = annotation["image_id"]
            if image_id not in images:
                self._problem(
                    "annotation_without_image", f"no image has the annotated id {image_id!r}."
                )
                continue
            if image_id in annotated:
                self._problem("duplicate_annotation", f"image {image_id!r} has two annotations.")
                continue
            annotated.add(image_id)
            image, segments = images[image_id], annotation["segments_info"]
            yield AnnotatedImage(
                image_id=image_id,
                file_name=image["path"],
                png_name=annotation["path"],
                height=image["height"],
                width=image["width"],
                segments=list(self._segments(segments, image_id, category_ids)),
            )

    def _segments(
        self, given: list, image_id: int | str, category_ids: Collection[int]
    ) -> Iterator[dict]:
        image = f"{self._where}: image {image_id!r}"
        ids = set()
        for place, entry in enumerate(given):
            try:
                segment = read_fields(entry, SEGMENT_FIELDS, f"{image}: segments_info[{place}]")
            except ValueError as error:
                self._tell(Problem("malformed_entry", str(error)))
                continue
            if segment["id"] in ids:
                message = f"image {image_id!r} has two segments of the id {segment['id']}."
                self._problem("duplicate_segment_id", message)
                continue
            ids.add(segment["id"])
            if segment["category_id"] not in category_ids:
                message = (
                    f"{image} has a segment of category {segment['category_id']!r}, which is not "
                    "among the dataset's categories."
                )
                self._tell(Problem("unknown_category", message))
            segment["iscrowd"] = int(segment["iscrowd"])
            yield segment

    def _entries(self, name: str, fields: dict, root: str | Path) -> Iterator[dict]:
        """The valid entries of a list, each with the ``path`` of its file."""
        for place, entry in enumerate(self._content[name]):
            where = f"{self._where}: an {name[:-1]} ({name}[{place}])"
            try:
                read = read_fields(entry, fields, where)
                yield {**read, "path": find_below(root, read["file_name"], self._where)}
            except ValueError as error:
                self._tell(Problem("malformed_entry", str(error)))

    def _problem(self, kind: str, message: str) -> None:
        self._tell(Problem(kind, f"{self._where}: {message}"))


def without_unused_namesakes(
    categories: list, used: Collection[int | None]
) -> tuple[list, list[dict]]:
    """Leaves out categories that have the name of another and that no annotation uses.

    Some tools write such a category in front of the classes, as their root. If annotations use none
    of several namesakes, the one whose ``supercategory`` is the name stays, or else the last one.

    Args:
        categories: as a file has them, unchecked.
        used: the category ids of annotations.

    Returns:
        The categories that stay, and those that are left out.
    """
    by_name: dict[str, list[dict]] = {}
    for category in categories:
        if isinstance(category, dict) and isinstance(category.get("name"), str):
            by_name.setdefault(category["name"], []).append(category)
    unused: list[dict] = []
    for name, namesakes in by_name.items():
        kept = [c for c in namesakes if whole_number(c.get("id")) in used]
        kept = kept or [c for c in namesakes if c.get("supercategory") == name][:1]
        kept = kept or namesakes[-1:]
        unused += [c for c in namesakes if not any(c is other for other in kept)]
    return [c for c in categories if not any(c is other for other in unused)], unused


def read_crowds_as_things(segments: Sequence[dict], things: Collection[int]) -> list[dict]:
    """Reads crowds of things as single objects, for files of tools that mark masks as crowds.

    Args:
        segments: an image's, with ``category_id`` and ``iscrowd``; they aren't changed.
        things: the ``category_id`` of things.
    """
    return [
        {**segment, "iscrowd": 0} if segment["category_id"] in things else segment
        for segment in segments
    ]


def read_categories_list(
    given: Collection[object],
    where: str | Path,
    tell: Tell = stop,
    *,
    isthing: bool | None = None,
) -> list[dict]:
    """Reads COCO's ``categories``. Fields that are not read stay as they are.

    Args:
        given: as a file has them; they aren't changed.
        where: the file, for messages.
        tell: is called with each problem.
        isthing: the value for categories without ``isthing``; None: it must be there.
    """
    read: list[dict] = []
    for place, entry in enumerate(given):
        at = f"{where}: a category (categories[{place}])"
        try:
            category = read_fields(entry, CATEGORY_FIELDS, at)
        except ValueError as error:
            tell(Problem("malformed_entry", str(error)))
            continue
        try:
            category = read_fields(category, isthing_field(isthing), at)
        except ValueError as error:
            tell(Problem("isthing_not_boolean", str(error)))
            category["isthing"] = False
        read.append(category)
    for key in ("id", "name"):
        counts = Counter(category[key] for category in read)
        twice = [value for value, count in counts.items() if count > 1]
        if twice:
            message = f"{where}: two categories have the same {key}: {quoted(twice)}."
            tell(Problem("duplicate_category", message))
    return read

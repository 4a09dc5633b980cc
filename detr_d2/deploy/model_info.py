"""The metadata of an exported file, and other names and colours of its classes.

Axes: K classes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from detr_d2.data.deep_pixels import EIGHT_BITS, FULL_RANGE
from detr_d2.data.image_file import DEFAULT_OPTIONS, ImageOptions
from detr_d2.file_io import quoted, read_json

# The entry of the file's metadata that holds it all, as JSON, and the format that is read here.
KEY = "detr_d2"
FORMAT = 1

_EXPORT_AGAIN = "Export the model again: detr-d2 export --form panoptic."


class ModelError(ValueError):
    """A file isn't a model that can be used here, or contradicts its own metadata."""


@dataclass(frozen=True)
class ModelClass:
    """A class of the model.

    Attributes:
        id: of the category in the dataset's files.
        name: for people.
        isthing: else it is stuff.
        color: red, green and blue in 0 … 255; () in a category that names none,
            until ``with_categories`` gives it the model's.
    """

    id: int
    name: str
    isthing: bool
    color: tuple[int, int, int] | tuple[()]


@dataclass(frozen=True)
class ModelInfo:
    """How a model needs its images, and what its numbers mean.

    Attributes:
        classes: K of them; the model's class k is the k-th.
        input_format: the order of channels, "RGB" or "BGR".
        min_size: pixels that the shorter side of an image is resized to; 0: it keeps its size.
        max_size: most pixels that the longer side may have then.
        fixed_size: (height, width) of the only images that the model takes, or None.
        image_options: how image files are read.
        max_side: most pixels that a side of the network's input may have; None for any number.
    """

    classes: tuple[ModelClass, ...]
    input_format: str
    min_size: int
    max_size: int
    fixed_size: tuple[int, int] | None
    image_options: ImageOptions = DEFAULT_OPTIONS
    max_side: int | None = None

    @classmethod
    def from_metadata(cls, metadata: dict[str, str], where: str | Path) -> ModelInfo:
        """Reads the metadata of a file.

        Args:
            metadata: all entries.
            where: the file, for messages.

        Raises:
            ModelError: the entry is missing, is of another form or format, or has invalid values.
        """
        if KEY not in metadata:
            raise ModelError(
                f"{where}: an ONNX file, but not one of detr_d2: its metadata have no {KEY!r}. "
                + _EXPORT_AGAIN
            )
        try:
            content = json.loads(metadata[KEY])
        except ValueError as error:
            raise ModelError(f"{where}: its metadata {KEY!r} are no JSON ({error}).") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            found = content.get("format") if isinstance(content, dict) else content
            raise ModelError(
                f"{where}: its metadata are of format {quoted(found)}; this detr_d2 reads format "
                f"{FORMAT}. Use the detr_d2 that exported the file "
                f"({quoted(_get(content, 'version'))}), or export it with this one."
            )
        if content.get("form") != "panoptic":
            raise ModelError(
                f"{where}: a model of form {quoted(content.get('form'))}, whose output isn't the "
                f"panoptic picture. {_EXPORT_AGAIN}"
            )
        classes = _read_classes(content.get("classes"), f"{where}: its metadata")

        def read(key: str, is_right: Callable[[Any], bool], default: Any = None) -> Any:
            value = content.get(key, default)
            if not is_right(value):
                raise ModelError(f"{where}: its metadata have a wrong {key!r}: {quoted(value)}.")
            return value

        fixed_size = read("fixed_size", lambda size: size is None or _is_size(size))
        usual = DEFAULT_OPTIONS  # of older files, which don't have these entries
        return cls(
            classes,
            read("input_format", lambda order: order in ("RGB", "BGR")),
            min_size=read("min_size", lambda size: _is_whole(size) and size >= 0),
            max_size=read("max_size", lambda size: _is_whole(size) and size >= 0),
            fixed_size=fixed_size and tuple(fixed_size),
            image_options=ImageOptions(
                read("deep_range", _is_deep_range, usual.deep_range),
                read("ignore_exif", lambda ignore: isinstance(ignore, bool), usual.ignore_exif),
            ),
            # Older files don't have it.
            max_side=read("max_side", lambda side: side is None or _is_whole(side) and side > 0),
        )

    def with_categories(self, categories: Iterable[dict], where: str | Path) -> ModelInfo:
        """The same model with the ids, names and colours of a dataset's categories.

        Args:
            categories: COCO's, in any order. If their ids are the model's, they are matched by id.
                If not, they are sorted as in the datasets of detr_d2: first things, then stuff,
                both by rising id.
            where: the file that they come from, for messages.

        Raises:
            ModelError: their number differs from the model's classes, or other classes are things.
            ValueError: a category is incomplete.
        """
        try:
            classes = _read_classes(list(categories), str(where), needs_color=False)
        except ModelError as error:  # not the model's fault
            raise ValueError(str(error)) from None
        by_id = {each.id: each for each in classes}
        if by_id.keys() == {each.id for each in self.classes}:
            classes = tuple(by_id[each.id] for each in self.classes)
        else:
            classes = tuple(sorted(classes, key=lambda each: (not each.isthing, each.id)))
        ours, theirs = (
            f"{len(k)} classes ({sum(each.isthing for each in k)} of them things)"
            for k in (self.classes, classes)
        )
        if ours != theirs:
            raise ModelError(
                f"{where} has {theirs}, but the model was exported for {ours}. Use the categories "
                "that it was trained on, or a model that was exported for these."
            )
        for our, their in zip(self.classes, classes, strict=True):
            if our.isthing != their.isthing:
                kind = "a thing" if their.isthing else "stuff"
                raise ModelError(
                    f"{where}: {their.id} ({their.name}) is {kind}, but not in the model, which "
                    "merges by that. Correct its 'isthing'."
                )
        colored = (
            each if each.color else replace(each, color=own.color)
            for each, own in zip(classes, self.classes, strict=True)
        )
        return replace(self, classes=tuple(colored))


def read_categories(path: str | Path) -> list[dict]:
    """Reads COCO's categories from a panoptic JSON, or from a file with their list alone.

    Raises:
        OSError: the file can't be read.
        ValueError: the file has no such list.
    """
    content = read_json(path)
    categories = content.get("categories") if isinstance(content, dict) else content
    if not isinstance(categories, list):
        raise ValueError(f"{path}: neither a list of categories nor a JSON with 'categories'.")
    return categories


def _read_classes(
    entries: object, where: str, *, needs_color: bool = True
) -> tuple[ModelClass, ...]:
    if not isinstance(entries, list) or not entries:
        raise ModelError(f"{where} have no list of classes.")
    classes = tuple(_read_class(entry, where, needs_color) for entry in entries)
    counts = Counter(each.id for each in classes)
    twice = [class_id for class_id, times in counts.items() if times > 1]
    if twice:
        raise ModelError(f"{where}: two classes have the same id: {quoted(twice)}.")
    return classes


def _read_class(entry: Any, where: str, needs_color: bool) -> ModelClass:
    color = _get(entry, "color")
    sane = (
        _is_whole(_get(entry, "id"))
        and isinstance(_get(entry, "name"), str)
        and _get(entry, "isthing") in (0, 1)
        and (_is_color(color) or (color is None and not needs_color))
    )
    if not sane:
        raise ModelError(
            f"{where}: class {quoted(entry)} has to have a whole 'id', a 'name', 'isthing' (1 for "
            "things, 0 for stuff) and a 'color' ([red, green, blue], each in 0 … 255)."
        )
    return ModelClass(
        entry["id"], entry["name"], bool(entry["isthing"]), tuple(color) if color else ()
    )


def _get(entry: object, key: str) -> Any:
    return entry.get(key) if isinstance(entry, dict) else None


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: object) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and all(_is_whole(n) and n > 0 for n in value)
    )


def _is_deep_range(value: object) -> bool:
    return _is_whole(value) and EIGHT_BITS <= value <= FULL_RANGE


def _is_color(color: object) -> bool:
    return (
        isinstance(color, list)
        and len(color) == 3
        and all(_is_whole(value) and 0 <= value <= 255 for value in color)
    )

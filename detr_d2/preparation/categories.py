"""COCO's ``categories`` list: read, checked, and completed with what it doesn't say."""

from __future__ import annotations

import colorsys
import json
from pathlib import Path
from typing import Any

from detr_d2.preparation.errors import PreparationError, quoted

# Multiples of it, modulo 1, never come close to one another: colours that differ.
_GOLDEN_RATIO = 0.618033988749895


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: it cannot be read.
        PreparationError: it is not JSON.
    """
    with open(path, encoding="utf-8") as file:
        try:
            return json.load(file)
        except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, nested without end
            raise PreparationError(f"{path}: not a JSON file ({error})") from error


def read_categories(path: str | Path, *, isthing: bool | None = None) -> list[dict]:
    """The categories of a file: a list, or any of COCO's JSONs, whose ``categories`` are taken.

    Args:
        path: the file.
        isthing: see ``complete_categories``.

    Raises:
        OSError, PreparationError: it cannot be read, or is wrong.
    """
    content = read_json(path)
    if isinstance(content, dict):
        content = content.get("categories")
    return complete_categories(content, path, isthing=isthing)


def complete_categories(
    categories: Any, where: str | Path, *, isthing: bool | None = None
) -> list[dict]:
    """Checks categories and adds colours and ``isthing``, as 0 or 1.

    Args:
        categories: as a file has them: a list of dicts with at least ``id`` and ``name``.
        where: the file, for messages.
        isthing: what categories are that don't say it; None: they have to.

    Returns:
        New dicts in the same order.

    Raises:
        PreparationError: an entry is wrong, or two have the same id or name.
    """
    if not isinstance(categories, list) or not categories:
        raise PreparationError(
            f"{where}: needs COCO's list of categories, such as "
            '[{"id": 1, "name": "person", "isthing": 1}, …]'
        )
    complete: list[dict] = []
    for number, category in enumerate(categories):
        if not isinstance(category, dict) or not {"id", "name"} <= category.keys():
            raise PreparationError(f"{where}: category number {number} has no id or no name")
        said = f"{where}: category {quoted(category['id'])}"
        if type(category["id"]) is not int or category["id"] < 0:
            raise PreparationError(f"{said}: an id has to be a whole number from 0 on")
        if not isinstance(category["name"], str) or not category["name"]:
            raise PreparationError(f"{said}: its name has to be a text")
        is_thing = category.get("isthing", isthing)
        if is_thing not in (0, 1):  # None as well; True and False are 1 and 0
            raise PreparationError(f"{said}: needs isthing: 1 for things, 0 for stuff")
        complete.append(
            {
                **category,
                "isthing": int(is_thing),
                "color": _color(category, number, said),
            }
        )
    for key in ("id", "name"):
        values = [category[key] for category in complete]
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise PreparationError(f"{where}: two categories have the {key} {quoted(twice)}")
    return complete


def things_of(categories: list[dict]) -> dict[int, bool]:
    """Whether each category, by its id, is a thing."""
    return {category["id"]: bool(category["isthing"]) for category in categories}


def _color(category: dict, number: int, said: str) -> list[int]:
    """The category's own colour (red, green, blue in 0 … 255), or a made-up one."""
    color = category.get("color")
    if color is None:
        saturation, value = 0.9 - 0.3 * (number % 2), 0.95 - 0.2 * (number // 2 % 2)
        rgb = colorsys.hsv_to_rgb(number * _GOLDEN_RATIO % 1, saturation, value)
        return [round(255 * channel) for channel in rgb]
    good = isinstance(color, list) and len(color) == 3
    if not good or not all(type(channel) is int and 0 <= channel <= 255 for channel in color):
        raise PreparationError(f"{said}: a color is [red, green, blue], each 0 … 255")
    return color

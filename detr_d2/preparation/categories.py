"""COCO's ``categories`` list: read, checked, and completed with what it doesn't say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detr_d2.data import json_file, panoptic_json
from detr_d2.data.messages import quoted
from detr_d2.preparation.errors import PreparationError


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: it cannot be read.
        PreparationError: it is not JSON.
    """
    try:
        return json_file.read_json(path)
    except ValueError as error:
        raise PreparationError(str(error)) from error


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
    try:
        complete = panoptic_json.complete_categories(categories, where, isthing=isthing)
    except ValueError as error:
        raise PreparationError(str(error)) from error
    for category in complete:
        if category["id"] < 0:
            raise PreparationError(
                f"{where}: category {quoted(category['id'])}: an id has to be a whole number from "
                "0 on"
            )
    return [{**category, "isthing": int(category["isthing"])} for category in complete]


def things_of(categories: list[dict]) -> dict[int, bool]:
    """Whether each category, by its id, is a thing."""
    return {category["id"]: bool(category["isthing"]) for category in categories}

"""COCO's ``categories`` list: read, checked, and completed with what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from detr_d2 import file_io
from detr_d2.data import panoptic_json
from detr_d2.data.panoptic_entries import without_unused_namesakes
from detr_d2.data.prepare.problems import PreparationError
from detr_d2.file_io import quoted


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: it cannot be read.
        PreparationError: it is not JSON.
    """
    try:
        return file_io.read_json(path)
    except ValueError as error:
        raise PreparationError(str(error)) from error


def listed_categories(path: str | Path) -> Any:
    """The unchecked categories of a file, which is a list of them or any of COCO's JSONs.

    Raises:
        OSError, PreparationError: it cannot be read.
    """
    content = read_json(path)
    return content.get("categories") if isinstance(content, dict) else content


def read_categories(path: str | Path, *, isthing: bool | None = None) -> list[dict]:
    """The categories of a file, see ``listed_categories`` and ``complete_categories``.

    Raises:
        OSError, PreparationError: it cannot be read, or is wrong.
    """
    return complete_categories(listed_categories(path), path, isthing=isthing)


def complete_categories(
    categories: Any, where: str | Path, *, isthing: bool | None = None
) -> list[dict]:
    """Checks categories and adds colours and ``isthing``, as 0 or 1.

    Ids may be written as 1.0 or "1". Spaces at the ends of a name are removed, unless another
    category then has the same name. Colours may be written as "#2080c0"; wrong ones are replaced.

    Args:
        categories: as a file has them: a list of dicts with at least ``id`` and ``name``.
        where: the file, for messages.
        isthing: the value for categories without ``isthing``; None: it must be there.

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
        complete = panoptic_json.complete_categories(_stripped(categories), where, isthing=isthing)
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


def _stripped(categories: list) -> list:
    """New entries without spaces at the ends of names, unless two names would become equal."""
    entries = [entry for entry in categories if isinstance(entry, dict)]
    names = Counter(e["name"].strip() for e in entries if isinstance(e.get("name"), str))
    return [
        {**entry, "name": entry["name"].strip()}
        if isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and names[entry["name"].strip()] == 1
        else entry
        for entry in categories
    ]


def renaming_notes(given: list[dict], complete: list[dict]) -> list[str]:
    """A note for each category whose name has lost spaces at its ends."""
    return [
        f"category {after['id']}: {quoted(before['name'])} is called {quoted(after['name'])} from "
        "here on"
        for before, after in zip(given, complete, strict=True)
        if before["name"] != after["name"]
    ]


def without_unused_twins(categories: Any, used: Collection[int | None]) -> tuple[Any, list[str]]:
    """Applies ``without_unused_namesakes``, and gives a note for each category left out.

    Args:
        categories: as a file has them, unchecked.
        used: the category ids of annotations.
    """
    if not isinstance(categories, list):
        return categories, []
    kept, unused = without_unused_namesakes(categories, used)
    notes = [
        f"category {quoted(twin.get('id'))} is left out: nothing is annotated with it, and another "
        f"is called {quoted(twin['name'])} too"
        for twin in unused
    ]
    return kept, notes

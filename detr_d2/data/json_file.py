"""JSON files: read whoever has written them, and written as a whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from detr_d2.data.whole_file import written_whole


def read_json(path: str | Path) -> Any:
    """The content of a JSON file in UTF-8, with or without a byte-order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON; the message names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, nested without end
        raise ValueError(f"{path}: cannot be read as JSON ({error}).") from error


def write_json_atomically(content: Any, path: str | Path) -> None:
    """Writes JSON so that readers see the whole file or none of it.

    Raises:
        OSError: it can't be written; what had its name before stays.
    """
    with written_whole(path, "w") as file:
        json.dump(content, file)

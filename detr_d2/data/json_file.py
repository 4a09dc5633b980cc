"""JSON files that are there as a whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from detr_d2.data.whole_file import written_whole


def write_json_atomically(content: Any, path: str | Path) -> None:
    """Writes JSON so that readers see the whole file or none of it.

    Raises:
        OSError: it can't be written; what had its name before stays.
    """
    with written_whole(path, "w") as file:
        json.dump(content, file)

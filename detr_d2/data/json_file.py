"""JSON files that are there as a whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_json_atomically(content: Any, path: str | Path) -> None:
    """Writes JSON so that readers see the whole file or none of it."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w") as file:
            json.dump(content, file)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)

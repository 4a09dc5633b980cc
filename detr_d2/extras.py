"""Optional packages, and what to say where they are missing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec


def require_extra(extra: str, who_needs: str, names: Sequence[str]) -> None:
    """Makes sure that packages of an extra are there, without importing them.

    Args:
        extra: its name in setup.py.
        who_needs: how the message begins, such as "Benchmarks need".
        names: modules.

    Raises:
        ImportError: the message names those that are missing, and the command that brings them.
    """
    missing = [name for name in names if not _is_installed(name)]
    if missing:
        raise ImportError(
            f"{who_needs} {' and '.join(missing)}, which this environment lacks: "
            f"pip install 'detr_d2[{extra}]', or in a checkout pip install -e '.[{extra}]'."
        )


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # what find_spec says of modules that were blocked
        return False

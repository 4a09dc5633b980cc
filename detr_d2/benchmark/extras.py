"""Packages that only benchmarks need."""

from __future__ import annotations

from importlib.util import find_spec

EXTRAS = ("transformers", "matplotlib")


def require_extras() -> None:
    """Makes sure that the packages of the extra ``benchmark`` are there.

    Raises:
        ImportError: the message names those that are missing, and the command that brings them.
    """
    missing = [name for name in EXTRAS if not _is_installed(name)]
    if missing:
        raise ImportError(
            f"Benchmarks need {' and '.join(missing)}, which this environment lacks: "
            "pip install 'detr_d2[benchmark]', or in a checkout pip install -e '.[benchmark]'."
        )


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # what find_spec says of modules that were blocked
        return False

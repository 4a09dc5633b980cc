"""Packages that only benchmarks need."""

from __future__ import annotations

from detr_d2.extras import require_extra


def require_extras() -> None:
    """Checks that the packages of the extra ``benchmark`` are installed; see ``require_extra``."""
    require_extra("benchmark", "Benchmarks need", ("transformers", "matplotlib"))

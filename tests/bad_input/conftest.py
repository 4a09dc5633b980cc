"""Counts bad inputs, and what became of them, for the lines at the end of the run.

A long run, of some hours: ``pytest tests/bad_input --hypothesis-profile=long``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import settings

COUNTS: Counter[str] = Counter()
settings.register_profile("long", max_examples=100_000)


@pytest.fixture(scope="session")
def try_input() -> Callable[..., None]:
    """Feeds something to a reader: ``try_input(read, check, names)``.

    What it returns must pass ``check``; what it raises must be an error for people, and contain
    ``names``, such as the file's.
    """

    def run(read: Callable[[], object], check: Callable[[object], None], names: str = "") -> None:
        COUNTS["tried"] += 1
        try:
            answer = read()
        except (FileNotFoundError, ValueError) as error:
            assert names in str(error) and str(error).strip()
            COUNTS["refused in one clear error"] += 1
        else:
            check(answer)
            COUNTS["answered rightly"] += 1

    return run


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Hands over what a test counted; Hypothesis wants no fixture of single tests for that."""
    for what, count in COUNTS.items():
        item.user_properties.append(("figure", (f"bad inputs {what}", count, "{}", "sum")))
    COUNTS.clear()

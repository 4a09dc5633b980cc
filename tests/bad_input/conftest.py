"""Counts bad inputs, and what became of them, for one line at the end of the run.

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
            COUNTS["errors"] += 1
        else:
            check(answer)
            COUNTS["answers"] += 1

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if COUNTS:
        tried, answers, errors = (COUNTS[what] for what in ("tried", "answers", "errors"))
        lost = tried - answers - errors
        terminalreporter.line(
            f"bad inputs tried: {tried}, {answers} answered rightly, {errors} refused in one clear "
            f"error, {lost or 'none'} lost"
        )

"""Numbers and flags in all forms."""

import pytest

from detr_d2.preparation.fields import as_flag, as_id, as_whole

WHOLE = [(3, 3), (3.0, 3), ("3", 3), (0, 0), (-0.0, 0), ("0", 0), (-2, -2), (10**30, 10**30)]
OTHERS = [None, True, False, 1.5, float("nan"), float("inf"), 1e300, "", "03", "-1", "1.0", " 1"]
OTHERS += ["²", "٣", "9" * 40, [], {}, [1]]


@pytest.mark.parametrize(("value", "expected"), WHOLE)
def test_whole_numbers(value, expected):
    for read in (as_whole, as_id):
        assert read(value) == expected and type(read(value)) is int


@pytest.mark.parametrize("value", OTHERS)
def test_other_values(value):
    assert as_whole(value) is None
    assert as_id(value) == (value if isinstance(value, str) else None)


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, "0", "1", False, True])
def test_flags(value):
    assert as_flag(value) is bool(int(value))


@pytest.mark.parametrize("value", [None, 2, -1, 0.5, "", "true", "2", [], [1], {}, float("nan")])
def test_no_flags(value):
    assert as_flag(value) is None

"""Single values of a panoptic JSON: what they are read as, and what nothing is made of."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_d2.data.panoptic_fields import Field, color, flag, is_crowd, read_fields, whole_number

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)


@given(JSON_VALUES)
@settings(deadline=None, database=None)
def test_whatever_a_file_has_is_read_or_refused(value):
    number, truth = whole_number(value), flag(value)
    assert number is None or (type(number) is int and float(value) == float(number))
    assert truth is None or (type(truth) is bool and float(value) == truth)
    parts = color(value)
    assert parts is None or (len(parts) == 3 and all(0 <= part <= 255 for part in parts))


@pytest.mark.parametrize("value", [2**63, -(2**63), 1e300, math.nan, math.inf, "9" * 30, True, "١"])
def test_numbers_that_no_array_holds_and_what_is_none(value):
    assert whole_number(value) is None


@pytest.mark.parametrize("value", [None, "", "x", 2, -1, 0.5, [], {}])
def test_a_wrong_iscrowd_is_named_also_in_dicts_from_elsewhere(value):
    with pytest.raises(ValueError, match=r"segment 7 has a wrong 'iscrowd': .*0, 1, false or true"):
        is_crowd({"id": 7, "iscrowd": value})
    assert not is_crowd({"id": 7})


def test_what_is_given_is_not_changed():
    entry = {"id": "7", "more": [1]}
    assert read_fields(entry, {"id": Field(whole_number, "a number")}, "x") == {**entry, "id": 7}
    assert entry["id"] == "7"

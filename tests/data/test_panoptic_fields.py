"""Numbers, flags and ids of JSONs, in the forms in which tools write them."""

import pytest

from detr_d2.data.panoptic_fields import flag, image_id, image_id_reader, whole_number

NO_NUMBERS = [None, True, False, 1.5, float("nan"), float("inf"), "", "x", "1.0", "²", [1], {}]


@pytest.mark.parametrize("written", [3, 3.0, "3"])
def test_whole_numbers(written):
    assert whole_number(written) == 3 and type(whole_number(written)) is int


@pytest.mark.parametrize("other", [*NO_NUMBERS, 2.0**60, 2**70, "9" * 40])
def test_what_is_no_whole_number(other):
    assert whole_number(other) is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [(0, False), (1, True), (1.0, True), ("0", False), ("1", True), (True, True), (2, None)],
)
def test_flags(written, meant):
    assert flag(written) is meant


@pytest.mark.parametrize("other", [None, "", "true", -1, 0.5, []])
def test_what_is_no_flag(other):
    assert flag(other) is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [(7, 7), (7.0, 7), ("7", 7), ("007", "007"), ("a.jpg", "a.jpg"), (None, None), (True, None)],
)
def test_ids_of_images_read_on_their_own(written, meant):
    assert image_id(written) == meant and type(image_id(written)) is type(meant)


def test_ids_of_images_of_a_file_have_one_type():
    assert [image_id_reader(["1", 2])(given) for given in ("1", 2.0)] == [1, 2]
    assert [image_id_reader(["a", 2])(given) for given in ("a", 2.0)] == ["a", "2"]
    assert image_id_reader(["01", "1"])("01") == "01"

"""Names of datasets as names of files."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detr_d2.data.file_names import file_name_of

ODD = ["pets/val", "..", "../x", "/etc/x", "a\\b", "C:x", "", ".", ".hidden", "a\0b", "a\nb", "ä/ö"]


@pytest.mark.parametrize("name", ["shapes_panoptic_val", "coco_2017_val", "v1.0-mini", "Straße_3"])
def test_usual_names_stay(name):
    assert file_name_of(name) == name


def test_an_odd_name_is_still_recognised():
    assert file_name_of("pets/val").startswith("pets_val-")


@pytest.mark.parametrize("name", [*ODD, "x" * 999, "ü" * 999, "\ud800"])
def test_names_stay_in_their_folder_and_are_short(tmp_path, name):
    path = tmp_path / f"{file_name_of(name)}.png"
    path.touch()
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    assert path.stem != name and len(path.name.encode()) < 150


@given(st.text(max_size=40))
def test_any_text_is_one_part_of_a_path(name):
    found = file_name_of(name)
    assert Path("folder", found).parts == ("folder", found)
    assert file_name_of(name) == found and "\0" not in found and not found.startswith(".")


def test_names_are_told_apart():
    names = [*ODD, "pets_val", "pets val", "pets//val", "x" * 999, "x" * 998, "x_1", "x 1"]
    names += [file_name_of(name) for name in names if file_name_of(name) != name]
    assert len({file_name_of(name) for name in names}) == len(names)

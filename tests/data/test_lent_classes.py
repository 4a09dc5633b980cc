"""What the catalog says of datasets that aren't there, and when they come."""

import pytest
from detectron2.data import MetadataCatalog

from detr_d2.data.categories import PanopticClasses, classes_of
from detr_d2.data.lent_classes import is_on_loan, lend, take_back
from detr_d2.data.panoptic_json import class_metadata

pytestmark = pytest.mark.usefixtures("registry")

CLASSES = PanopticClasses(("sky", "cat"), (8, 3), (False, True), ((1, 2, 3), (4, 5, 6)))
OTHERS = PanopticClasses(("dog", "sea"), (1, 2), (True, False))


def lend_classes(classes: PanopticClasses, name: str = "absent") -> None:
    lend(name, class_metadata(classes.categories()))


def test_lent_classes_are_found_in_the_metadata_and_count_for_nothing():
    lend_classes(CLASSES)
    metadata = MetadataCatalog.get("absent")
    assert PanopticClasses.from_metadata(metadata) == CLASSES
    assert PanopticClasses.from_metadata(metadata).colors == CLASSES.colors
    assert is_on_loan("absent") and classes_of("absent") is None


def test_a_second_loan_takes_the_place_of_the_first():
    """Two models in one process; the first one's metadata stays what it was."""
    lend_classes(CLASSES)
    first = MetadataCatalog.get("absent")
    lend_classes(CLASSES)
    assert MetadataCatalog.get("absent") is first
    lend_classes(OTHERS)
    assert PanopticClasses.from_metadata(MetadataCatalog.get("absent")) == OTHERS
    assert PanopticClasses.from_metadata(first) == CLASSES


def test_what_somebody_has_set_stays():
    MetadataCatalog.get("absent").set(thing_colors=[[9, 9, 9]] * 2, image_root="somewhere")
    lend_classes(CLASSES)
    metadata = MetadataCatalog.get("absent")
    assert PanopticClasses.from_metadata(metadata).colors == ((1, 2, 3), (9, 9, 9))
    take_back("absent")
    assert MetadataCatalog.get("absent").as_dict() == {
        "name": "absent",
        "thing_colors": [[9, 9, 9]] * 2,
        "image_root": "somewhere",
    }
    assert not is_on_loan("absent")
    take_back("absent")  # there is nothing to take


@pytest.mark.parametrize("stuff_colors", [None, [], [7], [[1, 2]], [["a", 1, 2]], 5, "red"])
def test_colors_that_make_no_sense_are_made(stuff_colors):
    metadata = CLASSES.metadata().as_dict() | {"stuff_colors": stuff_colors}
    found = PanopticClasses.from_metadata(type(CLASSES.metadata())(**metadata))
    assert found == CLASSES and found.colors[1] == (4, 5, 6)
    assert found.colors[0] == PanopticClasses(*[(x,) for x in ("sky", 8, False)]).colors[0]

"""Classes that a dataset has, and such as are called nearly the same."""

import pytest

from detr_d2.data.prepare.class_counts import count_classes, near_twins


def test_segments_crowds_and_images_are_counted(categories):
    infos = [[(1, 0), (1, 0), (1, 1)], [(1, 0), (7, 0)], []]
    annotations = [
        {"segments_info": [{"category_id": c, "iscrowd": crowd} for c, crowd in segments]}
        for segments in infos
    ]
    assert [str(count) for count in count_classes(categories, annotations)] == [
        "'cat' (thing): 4 segments, 1 of them crowds, in 2 images",
        "'dog' (thing): 0 segments in 0 images",
        "'sky' (stuff): 1 segments in 1 images",
        "'grass' (stuff): 0 segments in 0 images",
    ]


@pytest.mark.parametrize(
    "twins", [["cat", "Cat"], ["cat", "cat "], ["traffic light", "traffic_light"], ["a", "A", "ａ"]]
)
def test_near_twins(twins):
    (note,) = near_twins(["dog", *twins, "cow"])
    assert all(repr(name) in note for name in twins) and "'dog'" not in note
    assert f"are learned as {len(twins)} classes" in note


def test_other_names_are_no_twins():
    assert near_twins(["cat", "cats", "cat-1", "cat-2", "wall-wood", "猫"]) == []

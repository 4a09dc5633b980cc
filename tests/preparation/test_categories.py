"""COCO's list of categories."""

import pytest

from detr_d2.preparation import PreparationError
from detr_d2.preparation.categories import complete_categories, read_categories, things_of


def test_categories_are_completed(write_json, categories):
    complete = read_categories(write_json("list.json", categories))
    assert complete == read_categories(write_json("coco.json", {"categories": categories}))
    for before, after in zip(categories, complete, strict=True):
        assert after == {"color": after["color"], **before}
    assert things_of(complete) == {1: True, 2: True, 7: False, 9: False}


def test_isthing_may_be_a_bool_or_left_out():
    entries = [{"id": 1, "name": "a", "isthing": True}, {"id": 2, "name": "b"}]
    flags = [c["isthing"] for c in complete_categories(entries, "x", isthing=False)]
    assert flags == [1, 0] and [type(flag) for flag in flags] == [int, int]


def test_made_up_colours_differ():
    entries = [{"id": i, "name": str(i), "isthing": 0} for i in range(300)]
    colors = [tuple(c["color"]) for c in complete_categories(entries, "x")]
    assert len(set(colors)) == 300 and all(0 <= v <= 255 for color in colors for v in color)
    assert entries[0] == {"id": 0, "name": "0", "isthing": 0}  # left as it was


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": "x"}, "whole number"),
        ({"id": -1}, "whole number"),
        ({"id": True}, "whole number"),
        ({"id": 7}, "two categories have the same id: [7]"),
        ({"name": "sky"}, "two categories have the same name: ['sky']"),
        ({"name": ""}, "wrong 'name'"),
        ({"name": 3}, "wrong 'name'"),
        ({"isthing": None}, "wrong 'isthing'"),
        ({"isthing": 2}, "wrong 'isthing'"),
        ({"isthing": "x"}, "wrong 'isthing'"),
    ],
)
def test_broken_entries(change, said, categories):
    categories[0].update(change)
    with pytest.raises(PreparationError) as caught:
        complete_categories(categories, "x.json")
    assert str(caught.value).startswith("x.json: ") and said in str(caught.value)


@pytest.mark.parametrize("content", [[], {}, 3, None, [3], [{"id": 1}], [{"name": "a"}]])
def test_broken_lists(content, write_json):
    with pytest.raises(PreparationError, match=r"list\.json: (needs|a category .* (has|is) no)"):
        read_categories(write_json("list.json", content), isthing=True)

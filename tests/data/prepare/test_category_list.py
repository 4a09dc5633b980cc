"""COCO's list of categories."""

import pytest

from detr_d2.data.prepare import PreparationError
from detr_d2.data.prepare.category_list import (
    complete_categories,
    read_categories,
    things_of,
    without_unused_twins,
)


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


@pytest.mark.parametrize("written", ["3", 3.0, 3])
def test_ids_may_be_written_otherwise(written):
    (category,) = complete_categories([{"id": written, "name": "a"}], "x", isthing=True)
    assert category["id"] == 3 and type(category["id"]) is int


@pytest.mark.parametrize("color", ["#2080c0", "#2080C0", [32, 128.0, "192"]])
def test_colours_may_be_written_otherwise(color):
    (category,) = complete_categories([{"id": 3, "name": "a", "color": color}], "x", isthing=True)
    assert category["color"] == [32, 128, 192]


@pytest.mark.parametrize(
    "color",
    [[1, 2], [1, 2, 256], [1, 2, -1], [1, 2, 0.5], "red", "#12", "", 3, {}, [[1], 2, 3], True, []],
)
def test_odd_colours_are_made_up(color, categories):
    categories[0]["color"] = color
    made_up = complete_categories(categories, "x")[0]["color"]
    assert len(made_up) == 3 and all(type(v) is int and 0 <= v <= 255 for v in made_up)
    assert categories[0]["color"] == color


def test_spaces_at_the_ends_of_names_go_where_no_other_has_the_name():
    names = [" cat", "dog", "dog ", "wild boar\n"]
    entries = [{"id": i, "name": name} for i, name in enumerate(names)]
    complete = complete_categories(entries, "x", isthing=True)
    assert [category["name"] for category in complete] == ["cat", "dog", "dog ", "wild boar"]


ROOT = {"id": 0, "name": "cat", "supercategory": "none"}
CAT = {"id": "1", "name": "cat", "supercategory": "cat"}


@pytest.mark.parametrize(
    ("used", "kept"), [({1}, [CAT]), ({0}, [ROOT]), (set(), [CAT]), ({0, 1}, [ROOT, CAT])]
)
def test_unused_categories_of_anothers_name_are_left_out(used, kept):
    other = {"id": 5, "name": "dog"}
    left, notes = without_unused_twins([ROOT, other, CAT], used)
    assert [c for c in left if c is not other] == kept and other in left
    assert len(notes) == 2 - len(kept) and all("is called 'cat' too" in note for note in notes)


@pytest.mark.parametrize("odd", [None, 3, [3], [{"name": []}], [{"id": []}, {"name": "a"}]])
def test_odd_lists_are_left_to_be_refused(odd):
    assert without_unused_twins(odd, {1}) == (odd, [])


@pytest.mark.parametrize("content", [[], {}, 3, None, [3], [{"id": 1}], [{"name": "a"}]])
def test_broken_lists(content, write_json):
    with pytest.raises(PreparationError, match=r"list\.json: (needs|a category .* (has|is) no)"):
        read_categories(write_json("list.json", content), isthing=True)

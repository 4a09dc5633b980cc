"""The list says what the panoptic picture says, and names are text and never HTML."""

import re

from detectron2.data import Metadata

from detr_d2.apps.web.segment_markup import explanation, segment_choices, segment_list
from detr_d2.modeling.inference_options import PanopticOptions
from detr_d2.visualization.class_colors import segment_color


def cells(html: str) -> list[list[str]]:
    """The text of the table's cells, row by row, the head aside."""
    rows = re.findall(r"<tr.*?</tr>", html)[1:]
    return [re.sub("<.*?>", "|", row).replace("||", "|").split("|") for row in rows]


def test_list_says_what_the_picture_says(shown):
    rows = [[cell for cell in row if cell] for row in cells(segment_list(shown))]
    expected = [
        [
            str(s["id"]),
            shown.metadata.stuff_classes[s["category_id"]],
            "thing" if s["isthing"] else "stuff",
            f"{s['score']:.1%}",
            f"{s['area']:,}",
            f"{s['area'] / shown.ids.size:.1%}",
        ]
        for s in sorted(shown.segments_info, key=lambda s: -s["area"])
    ]
    assert rows == expected


def test_choices_are_the_rows_of_the_list(shown):
    rows = [[cell for cell in row if cell] for row in cells(segment_list(shown))]
    names = [f"{id}: {name}" for id, name, *_ in rows]
    assert segment_choices(shown) == [(name, int(name.split(":")[0])) for name in names]


def test_swatches_have_the_colours_of_the_picture(shown):
    html = segment_list(shown)
    for segment in shown.scene.segments:
        color = segment_color(shown.metadata, segment).round().astype(int)
        assert "#{:02x}{:02x}{:02x}".format(*color) in html


def test_names_are_never_html(shown):
    names = [f"<img src=x onerror=alert({k})>" for k in range(len(shown.metadata.stuff_classes))]
    evil = Metadata(name="evil", stuff_classes=names, thing_classes=names)
    object.__setattr__(shown, "metadata", evil)
    pointed = shown.pointed(5, 5)
    empty = shown.merged(PanopticOptions(1.0, "merged", 0))
    for html in (segment_list(pointed), explanation(pointed), segment_list(empty)):
        assert "onerror" in html
        assert "<img src=x" not in html


def test_the_chosen_segment_is_marked(shown):
    assert "chosen" not in segment_list(shown)
    pointed = shown.pointed(5, 5)
    marked = re.findall(
        r'<tr class="chosen" aria-current="true"><td class="number">(\d+)', segment_list(pointed)
    )
    assert marked == [str(pointed.chosen["id"])]


def test_an_empty_picture_says_how_far_it_is_from_full(shown):
    empty = shown.merged(PanopticOptions(1.0, "merged", 0))
    assert re.search(r"No segments.*, with \d+\.\d%", segment_list(empty))
    assert "Nothing is here" in explanation(empty.pointed(5, 5))
    assert "Click a segment" in explanation(empty)


def test_explanation_has_pictures_inside(shown):
    pointed = shown.pointed(5, 5)
    html = explanation(pointed)
    queries = pointed.chosen["queries"]
    assert all(f"Query {query}<" in html for query in queries)
    sources = re.findall(r'src="(.*?)"', html)
    assert len(sources) == len(queries) * 5  # a mask and four heads
    assert all(source.startswith("data:image/") for source in sources)

"""What the page shows beside pictures, as HTML: the list of segments, and why one is there."""

from __future__ import annotations

from dataclasses import dataclass

from detr_d2.apps.html.render_html import render_page
from detr_d2.apps.web.image_viewer import Shown
from detr_d2.apps.web.segment_reasons import reasons, surest_query
from detr_d2.visualization import SceneSegment
from detr_d2.visualization.class_colors import segment_color


@dataclass(frozen=True)
class SegmentRow:
    """What the page says of a segment.

    Attributes:
        id: of the segment.
        name: of its class.
        kind: "thing" or "stuff".
        color: of the segment in the picture, as CSS writes it.
        score: in [0, 1].
        area: in pixels.
        share: of the image, in [0, 1].
        num_queries: that the segment is made of.
        is_chosen: whether the segment is being explained.
    """

    id: int
    name: str
    kind: str
    color: str
    score: float
    area: int
    share: float
    num_queries: int
    is_chosen: bool


def page_style() -> str:
    """Returns the CSS of the page, beside Gradio's own."""
    return render_page("web.css")


def segment_list(shown: Shown) -> str:
    """Returns a table of all segments, the largest first, or says why there are none."""
    name, score = surest_query(shown)
    return render_page(
        "web_segments.html.j2", rows=_rows(shown), surest_name=name, surest_score=score
    )


def segment_choices(shown: Shown) -> list[tuple[str, int]]:
    """Returns what can be chosen: ids and names of all segments, with the ids alone."""
    return [(f"{row.id}: {row.name}", row.id) for row in _rows(shown)]


def explanation(shown: Shown) -> str:
    """Says why the segment at the point is there; without a point, how to choose one."""
    chosen = shown.chosen
    return render_page(
        "web_explanation.html.j2",
        has_point=shown.point is not None,
        row=next((row for row in _rows(shown) if row.is_chosen), None),
        reasons=[] if chosen is None else reasons(shown, chosen),
    )


def _rows(shown: Shown) -> list[SegmentRow]:
    """Lists the segments, the largest first."""
    pairs = zip(shown.segments_info, shown.scene.segments, strict=True)
    largest_first = sorted(pairs, key=lambda pair: -pair[0]["area"])
    return [_row(shown, info, segment) for info, segment in largest_first]


def _row(shown: Shown, info: dict, segment: SceneSegment) -> SegmentRow:
    color = segment_color(shown.metadata, segment).round().astype("uint8")
    return SegmentRow(
        id=info["id"],
        name=shown.metadata.stuff_classes[info["category_id"]],
        kind="thing" if info["isthing"] else "stuff",
        color="#" + color.tobytes().hex(),
        score=info["score"],
        area=info["area"],
        share=info["area"] / shown.ids.size,
        num_queries=len(info["queries"]),
        is_chosen=info is shown.chosen,
    )

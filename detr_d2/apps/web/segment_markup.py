"""What the page shows beside pictures, as HTML: the list of segments, and why one is there."""

from __future__ import annotations

from markupsafe import Markup

from detr_d2.apps.html.render_html import jpeg_uri
from detr_d2.apps.web.image_viewer import Shown
from detr_d2.apps.web.segment_reasons import QueryReason, reasons, surest_query
from detr_d2.visualization import SceneSegment
from detr_d2.visualization.class_colors import segment_color

STYLE = """
#image img, #picture img { max-height: 70vh; }
.detr table { width: 100%; border: 0 !important; border-collapse: collapse;
    font-variant-numeric: tabular-nums; }
.detr th, .detr td { padding: .3em .5em; border: 0; text-align: left; }
.detr tr { border: 0; border-bottom: 1px solid var(--border-color-primary); background: none; }
.detr .number { text-align: right; }
.detr .chosen { background: var(--color-accent-soft); }
.detr .swatch { display: inline-block; width: 1em; height: 1em; border-radius: 3px;
    vertical-align: -.1em; margin-right: .5em; border: 1px solid var(--border-color-primary); }
.detr td:has(> .swatch) { white-space: nowrap; }
.detr td:has(> .bar) { width: 50%; }
.detr .bar { display: block; height: .7em; min-width: 1px; border-radius: 2px;
    background: var(--color-accent); }
.detr .query { display: grid; gap: 1em; margin: 1em 0 1.5em;
    grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
.detr h3 { margin: .4em 0; } .detr h4 { margin: 0; grid-column: 1 / -1; }
.detr figure { margin: 0; } .detr figure img { width: 100%; margin: 0; border-radius: 4px; }
.detr .query > figure { max-width: 480px; }
.detr figcaption, .detr .hint { color: var(--body-text-color-subdued); font-size: .9em; }
.detr .maps { display: grid; gap: .5em;
    grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); }
.detr .maps .hint { grid-column: 1 / -1; margin: 0; }
footer { display: none; }
@media (max-width: 500px) { .detr th, .detr td { padding: .3em .2em; font-size: .9em; } }
"""


def segment_list(shown: Shown) -> str:
    """A table of all segments, the largest first, or why there are none."""
    if not shown.segments_info:
        name, score = surest_query(shown)
        return _block(
            Markup(
                "<p>No segments. The likeliest object of all queries is “{}”, with {}.</p>"
            ).format(name, _percent(score))
        )
    num_pixels = shown.ids.size
    chosen = shown.chosen
    rows = []
    for info, segment in _largest_first(shown):
        rows.append(
            Markup(
                '<tr{}><td class="number">{}</td><td><span class="swatch" style="background:{}">'
                '</span>{}</td><td>{}</td><td class="number">{}</td><td class="number">{}</td>'
                '<td class="number">{}</td></tr>'
            ).format(
                Markup(' class="chosen" aria-current="true"') if info is chosen else "",
                info["id"],
                _hex(segment_color(shown.metadata, segment)),
                shown.metadata.stuff_classes[info["category_id"]],
                _kind(info),
                _percent(info["score"]),
                f"{info['area']:,}",
                _percent(info["area"] / num_pixels),
            )
        )
    return _block(
        Markup(
            '<table><thead><tr><th class="number">id</th><th>class</th><th>kind</th>'
            '<th class="number">score</th><th class="number">pixels</th>'
            '<th class="number">share</th></tr></thead><tbody>{}</tbody></table>'
        ).format(Markup("").join(rows))
    )


def segment_choices(shown: Shown) -> list[tuple[str, int]]:
    """Ids and names of all segments, in the order of the list, and the ids alone."""
    names = shown.metadata.stuff_classes
    return [
        (f"{info['id']}: {names[info['category_id']]}", info["id"])
        for info, _ in _largest_first(shown)
    ]


def explanation(shown: Shown) -> str:
    """Why the segment at the point is there; nothing without a point."""
    if shown.point is None:
        return _block(
            Markup(
                '<p class="hint">Click a segment in the picture, or choose it by its name: why is '
                "it there?</p>"
            )
        )
    segment = shown.chosen
    if segment is None:
        return _block(Markup("<p>Nothing is here: no query has this pixel.</p>"))
    count = len(segment["queries"])
    found = reasons(shown, segment)
    return _block(
        Markup("<h3>{}: {} ({})</h3><p>{} of the image, made of {}{}.</p>{}").format(
            segment["id"],
            shown.metadata.stuff_classes[segment["category_id"]],
            _kind(segment),
            _percent(segment["area"] / shown.ids.size),
            "one query" if count == 1 else f"{count} queries",
            f", of which these are the surest {len(found)}" if count > len(found) else "",
            Markup("").join(_query(reason) for reason in found),
        )
    )


def _largest_first(shown: Shown) -> list[tuple[dict, SceneSegment]]:
    pairs = zip(shown.segments_info, shown.scene.segments, strict=True)
    return sorted(pairs, key=lambda pair: -pair[0]["area"])


def _query(reason: QueryReason) -> Markup:
    left, upper, right, lower = (round(edge) for edge in reason.box_xyxy)
    classes = Markup("").join(
        Markup(
            '<tr><td>{}</td><td><span class="bar" style="width:{}"></span></td>'
            '<td class="number">{}</td></tr>'
        ).format(name, _percent(score), _percent(score))
        for name, score in reason.top
    )
    box = f"Its box: {right - left} × {lower - upper} pixels from ({left}, {upper})."
    return Markup(
        '<div class="query"><h4>Query {}</h4>'
        '<div><table>{}</table><p class="hint">{}</p>{}</div>{}</div>'
    ).format(
        reason.index,
        classes,
        box,
        _attention(reason),
        _figure(reason.mask, "Its mask before the fight for pixels, and its box"),
    )


def _attention(reason: QueryReason) -> Markup:
    if not reason.attention:
        return Markup("")
    text, captions = (
        "Where its heads look.",
        [f"Head {n + 1}" for n in range(len(reason.attention))],
    )
    if reason.shares is not None:
        text = "Where its heads look, and what part of the attention each has."
        captions = [
            f"{caption}: {_percent(share)}"
            for caption, share in zip(captions, reason.shares, strict=True)
        ]
    figures = [_figure(*pair) for pair in zip(reason.attention, captions, strict=True)]
    return Markup('<div class="maps"><p class="hint">{}</p>{}</div>').format(
        text, Markup("").join(figures)
    )


def _figure(picture, caption: str) -> Markup:
    return Markup('<figure><img src="{}" alt="{}"><figcaption>{}</figcaption></figure>').format(
        jpeg_uri(picture), caption, caption
    )


def _kind(segment: dict) -> str:
    return "thing" if segment["isthing"] else "stuff"


def _percent(part: float) -> str:
    return f"{part:.1%}"


def _hex(color) -> str:
    return "#" + bytes(color.round().astype("uint8").tolist()).hex()


def _block(content: Markup) -> str:
    return str(Markup('<div class="detr">{}</div>').format(content))

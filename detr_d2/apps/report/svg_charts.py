"""Charts as SVG that stands in a page, and takes its colours from the page's style.

Sizes are in units of the drawing, which is about as wide as a phone's screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 380, 260
LEFT, RIGHT, ABOVE, BELOW = 36, 14, 26, 42  # margins around the plot


@dataclass(frozen=True)
class Series:
    """Values of one kind: its name, the class of style that colours it, and (x, y) points.

    Points whose y is NaN or None are left out.
    """

    name: str
    style: str
    points: Sequence[tuple[float, float | None]]


@dataclass(frozen=True)
class Plot:
    """The scales of a chart: x and y that lie at its left, right, bottom and top."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 2)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return round(HEIGHT - BELOW - (value - low) / (high - low) * (HEIGHT - ABOVE - BELOW), 2)

    def grid(self, x_ticks: Sequence[tuple[float, str]], x_title: str, y_title: str) -> list[str]:
        """Lines and labels; y has a line at each step."""
        parts = []
        for tick in nice_ticks(*self.y_range):
            y = self.y(tick)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
        for value, label in x_ticks:
            parts.append(
                f'<text x="{self.x(value)}" y="{HEIGHT - BELOW + 16}" text-anchor="middle">'
                f"{escape(label)}</text>"
            )
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(
            f'<text class="title" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">'
            f"{escape(x_title)}</text>"
        )
        parts.append(f'<text class="title" x="4" y="{ABOVE - 13}">{escape(y_title)}</text>')
        return parts


def nice_step(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that a span has about five steps."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next((m * power for m in (1, 2, 5) if span / (m * power) <= 6), 10 * power)


def nice_ticks(low: float, high: float) -> list[float]:
    """The whole multiples of a nice step from low to high."""
    step = nice_step(high - low)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * i, 9) for i in range(first, last + 1)]


def line_chart(
    description: str,
    series: Sequence[Series],
    *,
    x_title: str,
    y_title: str,
    x_range: tuple[float, float],
    marks: Sequence[tuple[str, float, str]] = (),
) -> Markup:
    """Lines over a common x.

    Args:
        description: for those who can't see it.
        series: at least one; their values decide where y begins and ends.
        x_title, y_title: of the axes.
        x_range: the ends of x.
        marks: vertical lines: a class of style, x, and what stands beside it.
    """
    values = [y for one in series for _, y in one.points if _is_number(y)]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    step = nice_step(max(high - low, 1.0))
    y_range = (math.floor(low / step) * step, math.ceil((high + step / 4) / step) * step)
    plot = Plot(x_range, y_range)
    x_ticks = [(x, f"{x:g}") for x in nice_ticks(*x_range)]
    parts = plot.grid(x_ticks, x_title, y_title)
    parts += _marks(plot, marks)
    for one in series:
        points = [(plot.x(x), plot.y(y), x, y) for x, y in one.points if _is_number(y)]
        path = " ".join(f"{x},{y}" for x, y, *_ in points)
        parts.append(f'<polyline class="line {one.style}" points="{path}"/>')
        parts += [
            f'<circle class="dot {one.style}" cx="{px}" cy="{py}" r="3">'
            f"<title>{escape(one.name)}: {y:.2f} at {x:g}</title></circle>"
            for px, py, x, y in points
        ]
    return _svg(description, parts)


def _marks(plot: Plot, marks: Sequence[tuple[str, float, str]]) -> list[str]:
    """Vertical lines, and beside all of them, where there is more room, what they mean."""
    places = [plot.x(x) for _, x, _ in marks]
    at_left = bool(places) and min(places) - LEFT > WIDTH - max(places)
    parts = []
    for row, ((style, _, label), at) in enumerate(zip(marks, places, strict=True)):
        y = HEIGHT - BELOW - 8 - 15 * row
        x, anchor = (min(places) - 5, "end") if at_left else (max(places) + 5, "start")
        parts.append(
            f'<line class="mark {style}" x1="{at}" x2="{at}" y1="{ABOVE}" y2="{HEIGHT - BELOW}"/>'
            f'<text class="halo of-{style}" x="{x:.2f}" y="{y}" text-anchor="{anchor}">'
            f"{escape(label)}</text>"
        )
    return parts


def bar_chart(
    description: str,
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    x_title: str,
    y_title: str,
    top: float,
) -> Markup:
    """Groups of bars from 0 to at most ``top``: one group for each label, one bar of each series.

    The x of a series' points are places in ``labels``.
    """
    plot = Plot((0, max(1, len(labels))), (0, top))
    parts = plot.grid([(i + 0.5, label) for i, label in enumerate(labels)], x_title, y_title)
    width = 0.8 / max(1, len(series))
    for number, one in enumerate(series):
        for place, value in one.points:
            if not _is_number(value):
                continue
            left = plot.x(place + 0.1 + number * width)
            right = plot.x(place + 0.1 + (number + 1) * width)
            y = plot.y(value)
            parts.append(
                f'<rect class="bar {one.style}" x="{left}" y="{y}" width="{right - left - 1:.2f}" '
                f'height="{plot.y(0) - y:.2f}"><title>{escape(one.name)}, '
                f"{escape(labels[int(place)])}: {value:.2f}</title></rect>"
            )
    return _svg(description, parts)


def reliability_chart(description: str, series: Sequence[Series], counts: Sequence[int]) -> Markup:
    """The share that is right over the mean score, in percent, the diagonal being perfect.

    Grey bars show how many segments each of the equally wide bins of scores has.
    """
    plot = Plot((0, 100), (0, 100))
    ticks = [(x, str(x)) for x in range(0, 101, 20)]
    parts = plot.grid(ticks, "mean score of a bin, %", "right, %")
    most, width = max([*counts, 1]), 100 / max(1, len(counts))
    for i, count in enumerate(counts):
        if count:
            left, right = plot.x(i * width), plot.x((i + 1) * width)
            y = plot.y(30 * count / most)
            parts.append(
                f'<rect class="bar count" x="{left}" y="{y}" width="{right - left - 1:.2f}" '
                f'height="{plot.y(0) - y:.2f}"><title>{count} segments with a score of '
                f"{i * width:g} to {(i + 1) * width:g} %</title></rect>"
            )
    parts.append(
        f'<line class="mark even" x1="{plot.x(0)}" y1="{plot.y(0)}" x2="{plot.x(100)}" '
        f'y2="{plot.y(100)}"/>'
    )
    for one in series:
        points = [(x, y) for x, y in one.points if _is_number(y)]
        path = " ".join(f"{plot.x(x)},{plot.y(y)}" for x, y in points)
        parts.append(f'<polyline class="line {one.style}" points="{path}"/>')
        parts += [
            f'<circle class="dot {one.style}" cx="{plot.x(x)}" cy="{plot.y(y)}" r="4">'
            f"<title>{escape(one.name)}: {y:.1f} % right at a score of {x:.1f} %</title></circle>"
            for x, y in points
        ]
    return _svg(description, parts)


def _svg(description: str, parts: Sequence[str]) -> Markup:
    # role=img: the text inside is no use to those who hear it, the tables below charts are.
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(description)}">{"".join(parts)}</svg>'
    )


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)

"""Charts as SVG inside a page. Their colours come from the style of the page.

Sizes are in units of the drawing, which is about as wide as the screen of a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 380, 260
LEFT, RIGHT, ABOVE, BELOW = 36, 14, 26, 42  # the margins around the plot


@dataclass(frozen=True)
class Series:
    """One line or one kind of bars in a chart.

    Attributes:
        name: for people.
        style: the style class that colours it.
        points: pairs of x and y; y is None or NaN where there is no value.
    """

    name: str
    style: str
    points: Sequence[tuple[float, float | None]]

    @property
    def known_points(self) -> list[tuple[float, float]]:
        """The points that have a value."""
        return [(x, y) for x, y in self.points if y is not None and math.isfinite(y)]


@dataclass(frozen=True)
class Plot:
    """The scales of a chart: the values at its left and right ends, and at its bottom and top."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 2)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return round(HEIGHT - BELOW - (value - low) / (high - low) * (HEIGHT - ABOVE - BELOW), 2)

    def grid(self, x_ticks: Sequence[tuple[float, str]], x_title: str, y_title: str) -> list[str]:
        """The horizontal lines, the labels of both axes and their titles."""
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
    """1, 2 or 5 times a power of ten, chosen so that a span has about five steps."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next((m * power for m in (1, 2, 5) if span / (m * power) <= 6), 10 * power)


def nice_ticks(low: float, high: float) -> list[float]:
    """The multiples of a nice step that lie between low and high."""
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
    """Draws lines over a common x axis.

    Args:
        description: for people who can't see the chart.
        series: at least one; the y axis has room for all their values.
        x_title, y_title: the titles of the axes.
        x_range: the ends of the x axis.
        marks: vertical lines, each with a style class, its x and a label.
    """
    values = [y for one in series for _, y in one.known_points]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    step = nice_step(max(high - low, 1.0))
    y_range = (math.floor(low / step) * step, math.ceil((high + step / 4) / step) * step)
    plot = Plot(x_range, y_range)
    x_ticks = [(x, f"{x:g}") for x in nice_ticks(*x_range)]
    parts = plot.grid(x_ticks, x_title, y_title)
    parts += _lines(plot, series, "{y:.2f} at {x:g}")
    parts += _marks(plot, marks)  # so that no line crosses their labels
    return _svg(description, parts)


def bar_chart(
    description: str,
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    x_title: str,
    y_title: str,
    top: float,
) -> Markup:
    """Draws a group of bars for each label, with one bar of each series.

    Args:
        description: for people who can't see the chart.
        labels: below the groups.
        series: the x of their points are indices of ``labels``.
        x_title, y_title: the titles of the axes.
        top: the upper end of the y axis, which begins at 0.
    """
    plot = Plot((0, max(1, len(labels))), (0, top))
    parts = plot.grid([(i + 0.5, label) for i, label in enumerate(labels)], x_title, y_title)
    width = 0.8 / max(1, len(series))
    for number, one in enumerate(series):
        for place, value in one.known_points:
            left = place + 0.1 + number * width
            title = f"{one.name}, {labels[int(place)]}: {value:.2f}"
            parts.append(_bar(plot, one.style, (left, left + width), value, title))
    return _svg(description, parts)


def reliability_chart(description: str, series: Sequence[Series], counts: Sequence[int]) -> Markup:
    """Draws precision over the mean score, both in percent. Perfect scores lie on the diagonal.

    Args:
        description: for people who can't see the chart.
        series: one for each run.
        counts: the number of segments in each of the equally wide bins of scores, drawn as grey
            bars.
    """
    plot = Plot((0, 100), (0, 100))
    ticks = [(x, str(x)) for x in range(0, 101, 20)]
    parts = plot.grid(ticks, "mean score of a bin, %", "precision, %")
    most, width = max([*counts, 1]), 100 / max(1, len(counts))
    for i, count in enumerate(counts):
        if count:
            ends = (i * width, (i + 1) * width)
            title = f"{count} segments with a score of {ends[0]:g} to {ends[1]:g} %"
            parts.append(_bar(plot, "count", ends, 30 * count / most, title))
    parts.append(
        f'<line class="mark even" x1="{plot.x(0)}" y1="{plot.y(0)}" x2="{plot.x(100)}" '
        f'y2="{plot.y(100)}"/>'
    )
    parts += _lines(plot, series, "precision {y:.1f} % at a score of {x:.1f} %")
    return _svg(description, parts)


def _lines(plot: Plot, series: Sequence[Series], title: str) -> list[str]:
    """A line through the points of each series, and a dot with a title for each point.

    The title is a format of x and y.
    """
    parts = []
    for one in series:
        path = " ".join(f"{plot.x(x)},{plot.y(y)}" for x, y in one.known_points)
        parts.append(f'<polyline class="line {one.style}" points="{path}"/>')
        parts += [
            f'<circle class="dot {one.style}" cx="{plot.x(x)}" cy="{plot.y(y)}" r="3">'
            f"<title>{escape(one.name)}: {title.format(x=x, y=y)}</title></circle>"
            for x, y in one.known_points
        ]
    return parts


def _bar(plot: Plot, style: str, ends: tuple[float, float], value: float, title: str) -> str:
    """A bar from y = 0 to a value, between two ends on the x axis."""
    (left, right), y = map(plot.x, ends), plot.y(value)
    return (
        f'<rect class="bar {style}" x="{left}" y="{y}" width="{right - left - 1:.2f}" '
        f'height="{plot.y(0) - y:.2f}"><title>{escape(title)}</title></rect>'
    )


def _marks(plot: Plot, marks: Sequence[tuple[str, float, str]]) -> list[str]:
    """Vertical lines; their labels stand on the side of all lines that has more room."""
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


def _svg(description: str, parts: Sequence[str]) -> Markup:
    # With role=img, screen readers skip the text inside; they read the table beside the chart.
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(description)}">{"".join(parts)}</svg>'
    )

"""Charts show their values."""

import math
from xml.etree import ElementTree

import pytest

from detr_d2.apps.report.svg_charts import (
    Series,
    bar_chart,
    line_chart,
    nice_ticks,
    reliability_chart,
)

HOSTILE = "<script>alert(\"1\")</script> & 'more'"


def lines(chart):
    return ElementTree.fromstring(str(chart)).findall("polyline")


def test_a_line_goes_through_its_values():
    series = [Series("PQ", "run-a", [(0, 10.0), (0.5, 30.0), (1, 20.0)])]
    chart = line_chart("d", series, x_title="x", y_title="y", x_range=(0, 1))
    (line,) = lines(chart)
    points = [tuple(map(float, p.split(","))) for p in line.get("points").split()]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert (y0 - y1) == pytest.approx(2 * (y0 - y2), abs=0.05)  # y goes down the screen
    assert len(ElementTree.fromstring(str(chart)).findall("circle")) == 3


def test_points_without_a_value_are_left_out():
    series = [Series("PQ", "a", [(0, None), (0.5, math.nan), (1, 20.0)])]
    (line,) = lines(line_chart("d", series, x_title="x", y_title="y", x_range=(0, 1)))
    assert len(line.get("points").split()) == 1
    nothing = [Series("PQ", "a", [(0, None)])]
    (line,) = lines(line_chart("d", nothing, x_title="x", y_title="y", x_range=(0, 1)))
    assert line.get("points") == ""
    assert "<rect" not in bar_chart("d", ["a"], nothing, x_title="x", y_title="y", top=100)


def test_bars_are_as_high_as_their_values():
    series = [Series("n", "a", [(0, 50.0), (1, 100.0)])]
    chart = bar_chart("d", ["a", "b"], series, x_title="x", y_title="y", top=100)
    heights = [float(r.get("height")) for r in ElementTree.fromstring(str(chart)).findall("rect")]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.05) and heights[0] > 0


def test_names_are_escaped():
    series = [Series(HOSTILE, "a", [(0, 1.0), (1, 2.0)])]
    marks = [("current", 0.5, HOSTILE)]
    charts = [
        line_chart(HOSTILE, series, x_title=HOSTILE, y_title=HOSTILE, x_range=(0, 1), marks=marks),
        bar_chart(HOSTILE, [HOSTILE] * 2, series, x_title="x", y_title="y", top=2),
        reliability_chart(HOSTILE, series, [1, 2]),
    ]
    for chart in charts:
        root = ElementTree.fromstring(str(chart))  # well-formed
        assert root.get("aria-label") == HOSTILE
        assert "<script" not in chart and not root.findall(".//script")


@pytest.mark.parametrize(
    ("ends", "ticks"),
    [
        ((0.05, 0.95), [0.2, 0.4, 0.6, 0.8]),
        ((0.7, 0.95), [0.7, 0.75, 0.8, 0.85, 0.9, 0.95]),
        ((20, 90), [20, 40, 60, 80]),
        ((0, 100), [0, 20, 40, 60, 80, 100]),
    ],
)
def test_ticks_are_few_and_round(ends, ticks):
    assert nice_ticks(*ends) == ticks

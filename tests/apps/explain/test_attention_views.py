"""Pictures of attention: their bytes are the weights, and a page has no more of them than fit."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from detr_d2.apps.explain.attention_views import MEAN, attention_views, grid_points, point_step
from detr_d2.apps.explain.recorded_attention import RecordedAttention

GRID = (3, 4)
POINTS, HEADS = 12, 2


@pytest.fixture
def attentions():
    torch.manual_seed(0)
    padding = torch.zeros(POINTS, dtype=torch.bool)
    return [
        RecordedAttention("", *torch.randn(2, POINTS, 8), num_heads=HEADS, padding=padding)
        for _ in range(3)
    ]


def weights_in(view: dict, count: int) -> np.ndarray:
    """T×h×w weights, from the picture of a view."""
    levels = np.array(Image.open(io.BytesIO(base64.b64decode(view["uri"].split(",")[1]))))
    height, width = GRID
    tiles = levels.reshape(-1, height, view["columns"], width).swapaxes(1, 2)
    tiles = tiles.reshape(-1, height, width)[:count]
    return tiles / 255 * np.reshape(view["peaks"], (-1, 1, 1))


def test_pictures_hold_the_weights(attentions):
    rows = torch.arange(POINTS)
    views = attention_views(attentions, rows, 5, GRID)
    assert [(v["layer"], v["head"]) for v in views] == [
        (layer, head) for layer in range(3) for head in (MEAN, 0, 1)
    ]
    for view in views:
        weights = attentions[view["layer"]].weights()
        expected = weights.mean(0) if view["head"] == MEAN else weights[view["head"]]
        found = weights_in(view, POINTS).reshape(POINTS, POINTS)
        np.testing.assert_allclose(found, expected, atol=expected.max().item() / 255)


@pytest.mark.parametrize(
    ("fitting", "expected"),
    [
        (0, [(2, MEAN)]),  # the first in any case
        (2, [(2, MEAN), (2, 0)]),
        (4, [(1, MEAN), (2, MEAN), (2, 0), (2, 1)]),
        (6, [(0, MEAN), (1, MEAN), (1, 0), (2, MEAN), (2, 0), (2, 1)]),
    ],
)
def test_the_most_telling_come_first(attentions, fitting, expected):
    rows = torch.arange(POINTS)
    views = attention_views(attentions, rows, 5, GRID, max_weights=fitting * POINTS * POINTS)
    assert [(v["layer"], v["head"]) for v in views] == expected


def test_of_large_grids_some_points_are_taken(attentions):
    assert point_step(GRID, POINTS * POINTS) == 1
    step = point_step(GRID, POINTS * POINTS - 1)
    assert step == 2
    points = grid_points(GRID, step)
    assert points.tolist() == [0, 2, 8, 10]
    (view,) = attention_views(attentions[:1], points, 2, GRID, max_weights=0)
    found = weights_in(view, len(points)).reshape(len(points), POINTS)
    expected = attentions[0].weights().mean(0)[points]
    np.testing.assert_allclose(found, expected, atol=expected.max().item() / 255)


def test_no_layers_give_no_pictures():
    assert attention_views([], torch.arange(POINTS), 5, GRID) == []

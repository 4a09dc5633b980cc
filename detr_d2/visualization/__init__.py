"""Pictures of what models see: segments, classes, boxes, ground truth."""

from detr_d2.visualization.pictures import (
    MAX_PICTURE_SIZE,
    MIN_INSTANCE_SCORE,
    below,
    beside,
    draw_ground_truth,
    draw_prediction,
    enlarge,
    fitted,
)
from detr_d2.visualization.scene import Scene, Segment
from detr_d2.visualization.views import VIEWS, draw_one, draw_view

__all__ = [
    "MAX_PICTURE_SIZE",
    "MIN_INSTANCE_SCORE",
    "VIEWS",
    "Scene",
    "Segment",
    "below",
    "beside",
    "draw_ground_truth",
    "draw_one",
    "draw_prediction",
    "draw_view",
    "enlarge",
    "fitted",
]

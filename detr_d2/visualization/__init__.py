"""Pictures of what models see: segments, classes, boxes, ground truth."""

from detr_d2.lazy_names import lazy_names

__all__ = [
    "MAX_PICTURE_SIZE",
    "MIN_INSTANCE_SCORE",
    "VIEWS",
    "PanopticScene",
    "SceneSegment",
    "below",
    "beside",
    "draw_ground_truth",
    "draw_one",
    "draw_prediction",
    "draw_view",
    "enlarge",
    "fitted",
]

# Looked up when they are used: exported models draw without PyTorch, Detectron2 and OpenCV.
__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(["PanopticScene", "SceneSegment"], "panoptic_scene"),
        **dict.fromkeys(["VIEWS", "draw_one", "draw_view"], "scene_views"),
        **dict.fromkeys(
            ["MAX_PICTURE_SIZE", "below", "beside", "enlarge", "fitted"], "picture_layout"
        ),
        **dict.fromkeys(
            ["MIN_INSTANCE_SCORE", "draw_ground_truth", "draw_prediction"], "annotated_pictures"
        ),
    },
)

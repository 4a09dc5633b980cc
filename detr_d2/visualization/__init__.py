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

# Fonts, colours and painting are used without Detectron2 as well.
__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(["PanopticScene", "SceneSegment"], "panoptic_scene"),
        **dict.fromkeys(["VIEWS", "draw_one", "draw_view"], "scene_views"),
        **dict.fromkeys(
            [
                "MAX_PICTURE_SIZE",
                "MIN_INSTANCE_SCORE",
                "below",
                "beside",
                "draw_ground_truth",
                "draw_prediction",
                "enlarge",
                "fitted",
            ],
            "annotated_pictures",
        ),
    },
)

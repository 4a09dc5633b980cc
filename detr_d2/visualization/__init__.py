"""Pictures of what models see: segments, classes, boxes, ground truth."""

from detr_d2.lazy_names import lazy_names

# Looked up when they are used: exported models draw without PyTorch, Detectron2 and OpenCV.
__all__, __getattr__ = lazy_names(
    __name__,
    {
        "annotated_pictures": ["MIN_INSTANCE_SCORE", "draw_ground_truth", "draw_prediction"],
        "panoptic_scene": ["PanopticScene", "SceneSegment"],
        "picture_layout": ["MAX_PICTURE_SIZE", "below", "beside", "enlarge", "fitted"],
        "scene_views": ["VIEWS", "draw_one", "draw_view"],
    },
)

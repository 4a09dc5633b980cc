"""Evaluation: panoptic quality, and box and mask AP of the things."""

from detr_d2.evaluation.panoptic_quality import (
    ClassQuality,
    GroupQuality,
    PanopticStats,
    class_quality,
    compare_panoptic,
    group_quality,
)
from detr_d2.evaluation.segment_matching import SegmentMatching, Segments, match_segments
from detr_d2.lazy_names import lazy_names

__all__ = [
    "ClassQuality",
    "GroupQuality",
    "PanopticEvaluator",
    "PanopticStats",
    "SegmentMatching",
    "Segments",
    "ThingInstanceEvaluator",
    "build_evaluators",
    "build_instance_evaluator",
    "class_quality",
    "compare_panoptic",
    "group_quality",
    "match_segments",
    "write_thing_instances",
]

# Panoptic quality of arrays works without Detectron2.
__getattr__ = lazy_names(
    __name__,
    {
        "PanopticEvaluator": "panoptic_evaluator",
        "ThingInstanceEvaluator": "thing_instances",
        "build_evaluators": "configured_evaluators",
        "build_instance_evaluator": "thing_instances",
        "write_thing_instances": "thing_instances",
    },
)

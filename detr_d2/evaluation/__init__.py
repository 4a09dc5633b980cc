"""Evaluation: panoptic quality, and box and mask AP of the things.

One image's way: the model's output (``panoptic_output``) → the ground truth with which it is
compared (``ground_truth``) → matched segments (``segment_matching``) → stats that add up over
images (``panoptic_quality``) → figures and tables (``panoptic_results``). ``panoptic_evaluator``
walks it for a whole dataset.
"""

from detr_d2.evaluation.ground_truth import GroundTruth
from detr_d2.evaluation.panoptic_quality import (
    GROUP_SUFFIXES,
    ClassQuality,
    GroupQuality,
    PanopticStats,
    class_quality,
    group_qualities,
    group_quality,
)
from detr_d2.evaluation.segment_matching import SegmentMatching, Segments, match_segments
from detr_d2.lazy_names import lazy_names

__all__ = [
    "GROUP_SUFFIXES",
    "ClassQuality",
    "GroundTruth",
    "GroupQuality",
    "PanopticEvaluator",
    "PanopticStats",
    "SegmentMatching",
    "Segments",
    "ThingInstanceEvaluator",
    "build_evaluators",
    "build_instance_evaluator",
    "class_quality",
    "group_qualities",
    "group_quality",
    "match_segments",
    "read_panoptic_output",
    "write_thing_instances",
]

# Panoptic quality works without PyTorch and Detectron2.
__getattr__ = lazy_names(
    __name__,
    {
        "PanopticEvaluator": "panoptic_evaluator",
        "ThingInstanceEvaluator": "thing_instances",
        "build_evaluators": "configured_evaluators",
        "build_instance_evaluator": "thing_instances",
        "read_panoptic_output": "panoptic_output",
        "write_thing_instances": "thing_instances",
    },
)

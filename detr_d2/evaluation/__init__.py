"""Evaluation: panoptic quality, and box and mask AP of the things."""

from importlib.util import find_spec

from detr_d2.evaluation.panoptic_quality import (
    ClassQuality,
    GroupQuality,
    PanopticStats,
    class_quality,
    compare_panoptic,
    group_quality,
)
from detr_d2.evaluation.segment_matching import SegmentMatching, Segments, match_segments

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

if find_spec("detectron2") is not None:  # without it, panoptic quality of arrays works
    from detr_d2.evaluation.build import build_evaluators
    from detr_d2.evaluation.panoptic_evaluator import PanopticEvaluator
    from detr_d2.evaluation.thing_instances import (
        ThingInstanceEvaluator,
        build_instance_evaluator,
        write_thing_instances,
    )

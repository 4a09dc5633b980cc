"""Evaluation: panoptic quality, and box and mask AP of the things.

One image's way: the model's output (``panoptic_output``) → the ground truth with which it is
compared (``ground_truth``) → matched segments (``segment_matching``) → stats that add up over
images (``panoptic_quality``) → figures and tables (``panoptic_results``). ``panoptic_evaluator``
goes this way with all images of a dataset.
"""

from detr_d2.lazy_names import lazy_names

# Panoptic quality works without PyTorch and Detectron2.
__all__, __getattr__ = lazy_names(
    __name__,
    {
        "configured_evaluators": ["build_evaluators"],
        "ground_truth": ["GroundTruth", "MatchedImage"],
        "panoptic_evaluator": ["PanopticEvaluator"],
        "panoptic_output": ["read_panoptic_output"],
        "panoptic_quality": [
            *("GROUP_SUFFIXES", "ClassQuality", "GroupQuality", "PanopticStats"),
            *("class_quality", "group_qualities", "group_quality"),
        ],
        "segment_matching": ["SegmentMatching", "Segments", "match_segments"],
        "thing_instances": [
            "ThingInstanceEvaluator",
            "build_instance_evaluator",
            "write_thing_instances",
        ],
    },
)

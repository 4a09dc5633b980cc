"""What a model is evaluated by."""

from __future__ import annotations

import os

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator

from detr_d2.evaluation.panoptic_evaluator import PanopticEvaluator
from detr_d2.evaluation.thing_instances import build_instance_evaluator


def build_evaluators(cfg: CfgNode, dataset_name: str) -> list[DatasetEvaluator]:
    """PQ where the model predicts masks, box and mask AP where the dataset has things.

    Their files go to ``OUTPUT_DIR/inference/<dataset>``.
    """
    folder = os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
    has_masks, options = cfg.MODEL.DETR.MASK_ON, cfg.MODEL.DETR.TEST
    evaluators: list[DatasetEvaluator] = []
    if options.INSTANCES_ON:
        tasks = ("bbox", "segm") if has_masks else ("bbox",)
        instances = build_instance_evaluator(dataset_name, folder, tasks)
        if instances is not None:
            evaluators.append(instances)
    # Last, so that PQ is what a log ends with.
    if has_masks and options.PANOPTIC_ON:
        evaluators.append(
            PanopticEvaluator(dataset_name, folder, save_predictions=options.SAVE_PREDICTIONS)
        )
    return evaluators

"""The choice of evaluators for a model and a dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import convert_to_coco_json
from detectron2.evaluation import DatasetEvaluator

from detr_d2.data.file_names import file_name_of
from detr_d2.data.panoptic_dataset import get_dataset_dicts
from detr_d2.evaluation.average_precision import InstanceEvaluator
from detr_d2.evaluation.panoptic_evaluator import PanopticEvaluator
from detr_d2.evaluation.thing_instances import build_instance_evaluator


def build_evaluators(
    cfg: CfgNode,
    dataset_name: str,
    *,
    dataset_dicts: list[dict] | None = None,
    tasks: Sequence[str] | None = None,
) -> list[DatasetEvaluator]:
    """Builds the evaluators of PQ and of box and mask AP.

    PQ needs a model with masks and a dataset with panoptic annotation. AP needs a dataset with
    things, and a model that gives all its instances (``INSTANCE_SCORE_THRESH`` 0). The evaluators
    write to ``evaluation_folder``.

    Args:
        cfg: the whole config.
        dataset_name: a registered dataset.
        dataset_dicts: its dicts, if they have been read already.
        tasks: of AP, "bbox" and "segm"; None: those of ``ap_tasks``.
    """
    folder = evaluation_folder(cfg, dataset_name)
    has_masks, options = cfg.MODEL.DETR.MASK_ON, cfg.MODEL.DETR.TEST
    tasks = ap_tasks(cfg) if tasks is None else tasks
    if dataset_dicts is None:
        dataset_dicts = get_dataset_dicts([dataset_name])
    # The dicts decide, as they do for the mapper. The metadata doesn't tell: a panoptic dataset may
    # name an instance JSON, too, and after its first evaluation it does.
    is_panoptic = not _has_instances_alone(dataset_dicts[0])
    evaluators: list[DatasetEvaluator] = []
    if tasks:
        if is_panoptic:
            instances = build_instance_evaluator(
                dataset_name, folder, tuple(tasks), dataset_dicts=dataset_dicts
            )
        else:
            _name_instance_json(dataset_name, folder)
            instances = InstanceEvaluator(dataset_name, tasks=tasks, output_dir=folder)
        if instances is not None:
            evaluators.append(instances)
    # PQ comes last, so a log ends with it.
    if is_panoptic and has_masks and options.PANOPTIC_ON:
        evaluators.append(
            PanopticEvaluator(
                dataset_name,
                folder,
                save_predictions=options.SAVE_PREDICTIONS,
                dataset_dicts=dataset_dicts,
            )
        )
    return evaluators


def ap_tasks(cfg: CfgNode, while_training: bool = False) -> list[str]:
    """The tasks of AP that a config wants of its model, in COCO's names: "bbox", "segm".

    Args:
        cfg: the whole config.
        while_training: whether the training goes on after the evaluation.
    """
    detr = cfg.MODEL.DETR
    wanted = detr.TEST.AP_WHILE_TRAINING if while_training else detr.TEST.AP
    possible = ("bbox", "segm") if detr.MASK_ON else ("bbox",)
    return [task for task in possible if task in wanted and detr.TEST.INSTANCES_ON]


def evaluation_folder(cfg: CfgNode, dataset_name: str) -> str:
    """The folder for the files of an evaluation. It is safe for any name of a dataset."""
    return os.path.join(cfg.OUTPUT_DIR, "inference", file_name_of(dataset_name))


def _name_instance_json(dataset_name: str, folder: str) -> None:
    """Writes the COCO JSON of a dataset that has none, under a safe file name.

    Detectron2 would use the name of the dataset as it is.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if not hasattr(metadata, "json_file"):
        path = os.path.join(folder, f"{file_name_of(dataset_name)}_coco_format.json")
        convert_to_coco_json(dataset_name, path)
        metadata.json_file = path


def _has_instances_alone(dataset_dict: dict) -> bool:
    return "annotations" in dataset_dict and "pan_seg_file_name" not in dataset_dict

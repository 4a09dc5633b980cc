"""Evaluation of a model on the datasets of a config: figures, pictures and reports."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format
from detectron2.utils import comm
from torch import nn

from detr_d2.data.image_file import ImageOptions
from detr_d2.data.loader import build_test_loader
from detr_d2.data.panoptic_dataset import get_dataset_dicts
from detr_d2.engine.evaluation_pictures import PictureCollector
from detr_d2.evaluation.configured_evaluators import (
    ap_tasks,
    build_evaluators,
    evaluation_folder,
)
from detr_d2.evaluation.panoptic_evaluator import PanopticEvaluator

logger = logging.getLogger(__name__)


def evaluate(
    cfg: CfgNode,
    model: nn.Module,
    *,
    reporter: Callable[..., DatasetEvaluator] | None = None,
    while_training: bool = False,
) -> OrderedDict:
    """Evaluates a model on every dataset of ``DATASETS.TEST`` in one pass over its images.

    The first images of a dataset are drawn, see ``PictureCollector``;
    ``MODEL.DETR.TEST.NUM_PICTURES`` is their number.

    Args:
        cfg: the whole config.
        model: in evaluation mode or not; Detectron2 sets the mode.
        reporter: makes a further evaluator for each dataset, which writes a report, as
            ``ReportCollector`` of ``detr_d2.apps.report`` does. The model needs
            ``MODEL.DETR.TEST.RAW_ON``.
        while_training: whether the training goes on afterwards; then AP is what
            ``MODEL.DETR.TEST.AP_WHILE_TRAINING`` says.

    Returns:
        On the main process, Detectron2's results by task; by dataset and task if there are several
        datasets. On other processes, an empty dict.
    """
    results: OrderedDict = OrderedDict()
    share_buffers(model)
    tasks = ap_tasks(cfg, while_training)
    for name in cfg.DATASETS.TEST:
        dataset_dicts = get_dataset_dicts([name])
        evaluators = build_evaluators(cfg, name, dataset_dicts=dataset_dicts, tasks=tasks)
        if not evaluators:
            logger.warning(
                "Nothing to evaluate on %s: its annotation has nothing that the model predicts.",
                name,
            )
            continue
        drawn = dataset_dicts[: cfg.MODEL.DETR.TEST.NUM_PICTURES]
        pictures = PictureCollector(name, drawn, ImageOptions.from_config(cfg))
        evaluators.append(pictures)
        if reporter is not None:
            folder = evaluation_folder(cfg, name)
            # The report comes last, so the log has the figures even if the report fails.
            panoptic = next((e for e in evaluators if isinstance(e, PanopticEvaluator)), None)
            evaluators.append(
                reporter(cfg, name, folder, dataset_dicts=dataset_dicts, panoptic=panoptic)
            )
        loader = build_test_loader(cfg, name, dataset_dicts=dataset_dicts)
        with predicting_for_ap(model, tasks):
            results[name] = inference_on_dataset(model, loader, evaluators)
        if comm.is_main_process():
            print_csv_format(results[name])
            pictures.write(cfg.OUTPUT_DIR)
    comm.synchronize()
    if not comm.is_main_process():
        return OrderedDict()
    return next(iter(results.values())) if len(results) == 1 else results


@contextmanager
def predicting_for_ap(model: nn.Module, tasks: Sequence[str]) -> Iterator[None]:
    """Has a model give what AP needs: all instances, and their masks for "segm" alone.

    Args:
        model: a DETR, perhaps wrapped for distributed training. Models of other kinds, which have
            no ``options``, are left as they are.
        tasks: of AP; without any, the model gives no instances.
    """
    detr = getattr(model, "module", model)
    options = getattr(detr, "options", None)
    if options is None:
        yield
        return
    detr.options = replace(
        options,
        instances_on=bool(tasks),
        instance_masks_on="segm" in tasks,
        instance_score_thresh=0.0,
    )
    try:
        yield
    finally:
        detr.options = options


def share_buffers(model: nn.Module) -> None:
    """Copies the buffers of the main process, which checkpoints hold, to all other processes.

    Each process has its own batch statistics. Without this, the processes would evaluate images
    with different statistics.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)

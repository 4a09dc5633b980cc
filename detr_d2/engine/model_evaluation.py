"""Evaluation of a model on the datasets of a config, in figures and in pictures."""

from __future__ import annotations

import logging
from collections import OrderedDict

import torch
from detectron2.config import CfgNode
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from torch import nn

from detr_d2.apps.report import ReportCollector
from detr_d2.data.image_file import ImageOptions
from detr_d2.data.loader import build_test_loader
from detr_d2.data.panoptic_dataset import get_dataset_dicts
from detr_d2.engine.evaluation_pictures import PictureCollector
from detr_d2.evaluation.configured_evaluators import build_evaluators, evaluation_folder

logger = logging.getLogger(__name__)


def evaluate(cfg: CfgNode, model: nn.Module, *, report: bool = False) -> OrderedDict:
    """Evaluates on every dataset of ``DATASETS.TEST`` and draws its first images.

    How many are drawn is ``MODEL.DETR.TEST.NUM_PICTURES``; see ``PictureCollector``. All is done in
    one pass: the model runs once for each image.

    With ``report``, each dataset's folder gets a ``report.html`` in the same pass; the model has to
    be one with ``MODEL.DETR.TEST.RAW_ON``.

    Returns:
        On the main process: the results by task, as Detectron2 has them; by dataset and task where
        there are several datasets. On others: empty.
    """
    results: OrderedDict = OrderedDict()
    share_buffers(model)
    for name in cfg.DATASETS.TEST:
        dataset_dicts = get_dataset_dicts([name])
        evaluators = build_evaluators(cfg, name, dataset_dicts=dataset_dicts)
        if not evaluators:
            logger.warning(
                "Nothing to evaluate on %s: the model predicts nothing that it annotates.", name
            )
            continue
        drawn = dataset_dicts[: cfg.MODEL.DETR.TEST.NUM_PICTURES]
        pictures = PictureCollector(name, drawn, ImageOptions.from_config(cfg))
        evaluators.append(pictures)
        if report:
            folder = evaluation_folder(cfg, name)
            # Last: the log has the figures, also where pictures of some image can't be made.
            evaluators.append(ReportCollector(cfg, name, folder, dataset_dicts=dataset_dicts))
        loader = build_test_loader(cfg, name, dataset_dicts=dataset_dicts)
        results[name] = inference_on_dataset(model, loader, evaluators)
        if comm.is_main_process():
            print_csv_format(results[name])
            pictures.write(cfg.OUTPUT_DIR)
    comm.synchronize()
    if not comm.is_main_process():
        return OrderedDict()
    return next(iter(results.values())) if len(results) == 1 else results


def share_buffers(model: nn.Module) -> None:
    """Gives all processes the first one's buffers, which are those that checkpoints hold.

    Each process has batch statistics of its own: without this, images would be evaluated with
    different ones.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)

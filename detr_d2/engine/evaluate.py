"""Evaluation of a model on the datasets of a config, in figures and in pictures."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import inference_context, inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import nn

from detr_d2.data.dataset_mapper import DetrDatasetMapper
from detr_d2.data.image_file import ImageOptions, read_image
from detr_d2.data.loader import build_test_loader
from detr_d2.data.panoptic_dataset import get_dataset_dicts
from detr_d2.evaluation.build import build_evaluators, evaluation_folder
from detr_d2.reporting import ReportCollector
from detr_d2.visualization import below, beside, draw_ground_truth, draw_prediction

logger = logging.getLogger(__name__)


def evaluate(cfg: CfgNode, model: nn.Module, *, report: bool = False) -> OrderedDict:
    """Evaluates on every dataset of ``DATASETS.TEST`` and draws some of its images.

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
        if report:
            folder = evaluation_folder(cfg, name)
            # Last: the log has the figures, also where pictures of some image can't be made.
            evaluators.append(ReportCollector(cfg, name, folder, dataset_dicts=dataset_dicts))
        loader = build_test_loader(cfg, name, dataset_dicts=dataset_dicts)
        results[name] = inference_on_dataset(model, loader, evaluators)
        if comm.is_main_process():
            print_csv_format(results[name])
            write_pictures(cfg, model, name, dataset_dicts)
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


def write_pictures(
    cfg: CfgNode, model: nn.Module, dataset_name: str, dataset_dicts: list[dict]
) -> None:
    """Draws a dataset's first ``TEST.NUM_PICTURES`` images: image, truth, prediction side by side.

    They go, one below the other, to ``OUTPUT_DIR/pictures/<dataset>.png``; while training, each
    goes to TensorBoard as well.
    """
    pictures = list(draw_pictures(cfg, model, dataset_name, dataset_dicts))
    if not pictures:
        return
    folder = os.path.join(cfg.OUTPUT_DIR, "pictures")
    os.makedirs(folder, exist_ok=True)
    sheet = below([picture for _, picture in pictures])
    cv2.imwrite(os.path.join(folder, f"{dataset_name}.png"), sheet[:, :, ::-1])
    if has_event_storage():
        for image_id, picture in pictures:
            get_event_storage().put_image(f"{dataset_name}/{image_id}", picture.transpose(2, 0, 1))


def draw_pictures(
    cfg: CfgNode, model: nn.Module, dataset_name: str, dataset_dicts: list[dict]
) -> Iterator[tuple[object, np.ndarray]]:
    """Draws the first ``TEST.NUM_PICTURES`` images.

    Args:
        cfg: the whole config.
        model: on any device.
        dataset_name: the dataset that names the classes.
        dataset_dicts: its images, in order.

    Gives:
        (image id, h×w×3 uint8 RGB picture: image, ground truth, prediction side by side).
    """
    metadata = MetadataCatalog.get(dataset_name)
    mapper = DetrDatasetMapper(cfg, is_train=False)
    options = ImageOptions.from_config(cfg)
    # One process draws: without the wrapper that would wait for the others.
    model = getattr(model, "module", model)
    for dataset_dict in dataset_dicts[: cfg.MODEL.DETR.TEST.NUM_PICTURES]:
        with inference_context(model), torch.no_grad():
            prediction = model([mapper(dataset_dict)])[0]
        image = read_image(dataset_dict["file_name"], "RGB", options)
        truth = draw_ground_truth(dataset_dict, metadata, options)
        drawn = draw_prediction(image, prediction, metadata)
        plain = cv2.resize(image, truth.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        yield dataset_dict["image_id"], beside([plain, truth, drawn])

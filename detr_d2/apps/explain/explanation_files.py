"""Writes an explanation as files: the page, and its pictures."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode

from detr_d2.apps.explain.explanation import Explanation, explain
from detr_d2.apps.explain.page_content import page_context
from detr_d2.apps.explain.picture_folder import pictures
from detr_d2.apps.html import write_page
from detr_d2.data.image_array import to_uint8_colors
from detr_d2.data.image_file import ImageOptions, read_image
from detr_d2.data.panoptic_dataset import get_dataset_dicts
from detr_d2.data.picture_file import write_picture
from detr_d2.engine.training_stages import evaluation_config
from detr_d2.file_io import check_writable
from detr_d2.predictor import Predictor

logger = logging.getLogger(__name__)

PAGE = "explain.html"


def explain_image(predictor: Predictor, image: np.ndarray) -> Explanation:
    """Follows an image through a predictor's model, resized as the predictor does.

    Args:
        predictor: Detectron2's ``DefaultPredictor``, or the one of ``detr_d2.predictor``.
        image: H×W×3, BGR, as ``Predictor`` takes it.

    Raises:
        ValueError: see ``Predictor`` and ``explain``.
    """
    image = to_uint8_colors(image, predictor.cfg.INPUT.DEEP_RANGE)
    height, width = image.shape[:2]
    if predictor.input_format == "RGB":
        image = image[:, :, ::-1]
    resized = predictor.aug.get_transform(image).apply_image(image)
    pixels = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1)))
    network_input = {"image": pixels.float(), "height": height, "width": width}
    metadata = getattr(predictor, "metadata", None)  # Detectron2's has none without a dataset
    return explain(predictor.model, network_input, predictor.input_format, metadata)


def write_explanation(explanation: Explanation, folder: str | Path) -> Path:
    """Writes ``explain.html``, which needs no other file, and its pictures as PNG.

    Pictures that an earlier explanation left in the folder are removed.

    Args:
        explanation: what ``explain`` gave.
        folder: it is made if it doesn't exist.

    Returns:
        The page's path.

    Raises:
        OSError: something can't be written.
    """
    folder = Path(folder)
    check_writable(folder, "The output folder")
    for old in folder.glob("move[1-7]_*.png"):
        old.unlink()
    for name, picture in pictures(explanation):
        write_picture(picture, folder / f"{name}.png")
    write_page(folder / PAGE, "explain.html.j2", **page_context(explanation))
    return folder / PAGE


def explain_file(cfg: CfgNode, image_file: str | None, output_dir: str) -> Path:
    """Follows an image file through the model of a config, and writes the page and its pictures.

    Args:
        cfg: the whole config; ``MODEL.WEIGHTS`` is used as for evaluation.
        image_file: an image of any kind that training takes; None: the first image of
            ``DATASETS.TEST``.
        output_dir: a folder.

    Returns:
        The page's path.

    Raises:
        FileNotFoundError: the image, the dataset or the weights don't exist.
        OSError: the image can't be read, or a file can't be written.
        ValueError: the model can't take the image, or the weights don't fit.
    """
    image_file = image_file or get_dataset_dicts(cfg.DATASETS.TEST)[0]["file_name"]
    image = read_image(Path(image_file), "BGR", ImageOptions.from_config(cfg))
    check_writable(output_dir, "--output")
    predictor = Predictor(evaluation_config(cfg))
    try:
        explanation = explain_image(predictor, image)
    except ValueError as error:
        raise ValueError(f"{image_file}: {error}") from error
    page = write_explanation(explanation, output_dir)
    logger.info("Wrote %s (%.1f MB)", page, page.stat().st_size / 1e6)
    return page

"""Prediction on image files: finds them, reads them, draws what the model sees."""

from __future__ import annotations

import glob
import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultPredictor
from tqdm import tqdm

from detr_d2.data.dataset_mapper import ResizeShortestEdge
from detr_d2.data.image_array import to_uint8_colors
from detr_d2.data.image_file import read_image
from detr_d2.engine.checkpoint import StrictCheckpointer
from detr_d2.engine.stages import evaluation_config
from detr_d2.visualization import MIN_INSTANCE_SCORE, draw_prediction

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


class Predictor(DefaultPredictor):
    """Detectron2's predictor, for weights of every kind that training and evaluation take.

    ``DefaultPredictor`` itself takes those that are one file of PyTorch; this one also folders of
    Hugging Face and files of safetensors. Files that don't fit are refused. So are arrays that are
    no images, and others become what ``DefaultPredictor`` wants, see ``__call__``.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """Builds the model of a config.

        Raises:
            FileNotFoundError, ValueError: ``MODEL.WEIGHTS`` can't be read, or doesn't fit.
        """
        without_weights = cfg.clone()
        without_weights.defrost()
        without_weights.MODEL.WEIGHTS = ""
        super().__init__(without_weights)
        self.cfg.MODEL.WEIGHTS = cfg.MODEL.WEIGHTS
        StrictCheckpointer(self.model).load(cfg.MODEL.WEIGHTS)
        sizes = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
        self.aug = ResizeShortestEdge(*sizes)

    def __call__(self, original_image: np.ndarray) -> dict:
        """Predicts on one image, of any size from one pixel on.

        Args:
            original_image: H×W×3, BGR, in 0 … 255: uint8, or whole or floating-point numbers,
                which are rounded. Of uint16 the upper 8 bits are taken. Grey (H×W, H×W×1) is taken
                as well, and of a fourth channel (transparency) no notice.

        Returns:
            What the model makes of it, at its size.

        Raises:
            ValueError: no pixels, channels first, two channels, several images at once, values out
                of range, or in a range that hints at another (floats in 0 … 1, 16 bits that are
                8), or no array at all, such as the None that cv2.imread returns.
        """
        return super().__call__(to_uint8_colors(original_image))


def picture_config(cfg: CfgNode) -> CfgNode:
    """The config of a model that predicts only what a picture shows.

    That is the panoptic picture, or where there is none the instances with a score worth drawing.
    """
    cfg = cfg.clone()
    cfg.defrost()
    detr = cfg.MODEL.DETR
    if detr.MASK_ON and detr.TEST.PANOPTIC_ON:
        detr.TEST.INSTANCES_ON = False
    else:
        threshold = max(detr.TEST.INSTANCE_SCORE_THRESH, MIN_INSTANCE_SCORE)
        detr.TEST.INSTANCE_SCORE_THRESH = threshold
    cfg.freeze()
    return cfg


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Expands files, folders (with all below them) and globs to image files, in order.

    A file that is named itself is taken whatever its suffix, also where it doesn't exist: reading
    it then says so.

    Raises:
        FileNotFoundError: a folder or glob holds no image.
    """
    found: list[Path] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            candidates = sorted(path.rglob("*"))
        elif glob.has_magic(name) and not path.exists():
            candidates = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
        else:
            found.append(path)
            continue
        images = [p for p in candidates if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
        if not images:
            raise FileNotFoundError(f"No images in {name} (suffixes: {sorted(IMAGE_SUFFIXES)})")
        found.extend(images)
    return found


def predict_files(cfg: CfgNode, inputs: Sequence[str], output_dir: str) -> int:
    """Predicts on images and writes a picture of each to a folder.

    An image that can't be read, or that the model can't take, is logged, and the others go on.

    Args:
        cfg: the whole config; ``MODEL.WEIGHTS`` as for evaluation.
        inputs: files, folders or globs.
        output_dir: where pictures go, under the names of the images, as PNG.

    Returns:
        How many images failed.

    Raises:
        FileNotFoundError: no images, or no weights.
        OSError: a picture can't be written.
        ValueError: no dataset is named, whose classes the pictures show.
    """
    if not cfg.DATASETS.TEST:
        raise ValueError("DATASETS.TEST is empty: pictures take the names of classes from it.")
    paths = find_images(inputs)
    cfg = picture_config(evaluation_config(cfg))
    predictor = Predictor(cfg)
    metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    names = _distinct_names(paths)
    failed = 0
    pairs = zip(paths, names, strict=True)
    # No bar where the output is no terminal, but a file.
    for path, name in tqdm(pairs, total=len(paths), unit="image", disable=None):
        try:
            image, prediction = _predict_file(predictor, path)
        except (OSError, ValueError) as error:
            logger.error("%s", error)
            failed += 1
            continue
        picture = draw_prediction(np.ascontiguousarray(image[:, :, ::-1]), prediction, metadata)
        if not cv2.imwrite(str(folder / name), picture[:, :, ::-1]):
            raise OSError(f"{folder / name}: the picture cannot be written.")
    logger.info("Wrote %d pictures to %s", len(paths) - failed, folder)
    return failed


def _predict_file(predictor: Predictor, path: Path) -> tuple[np.ndarray, dict]:
    """An image, H×W×3 BGR, and what the model makes of it; errors name the file."""
    image = read_image(path, "BGR")
    try:
        return image, predictor(image)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """A PNG name for each image; images of one name in several folders are numbered."""
    names: list[str] = []
    taken: set[str] = set()
    for path in paths:
        name, number = f"{path.stem}.png", 2
        while name in taken:
            name, number = f"{path.stem}_{number}.png", number + 1
        taken.add(name)
        names.append(name)
    return names

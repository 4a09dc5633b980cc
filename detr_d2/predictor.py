"""Detectron2's predictor for weights and images of every kind that detr_d2 takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

from detr_d2.checkpoint import resolve_config
from detr_d2.data.dataset_mapper import ResizeShortestEdge
from detr_d2.data.image_array import to_uint8_colors
from detr_d2.engine.checkpointer import StrictCheckpointer
from detr_d2.visualization import MIN_INSTANCE_SCORE


class Predictor(DefaultPredictor):
    """Detectron2's predictor, for weights of every kind that training and evaluation take.

    ``DefaultPredictor`` reads weights from one file of PyTorch. This predictor also reads folders
    of Hugging Face and files of safetensors, and refuses weights that don't fit the model. It
    converts images of other types to 8-bit colours, and refuses arrays that are not images.

    Attributes:
        model: in evaluation mode.
        metadata: names and colours of the classes, from the first dataset of ``DATASETS.TEST``; if
            no dataset is named there, from the weights.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """Builds the model of a config.

        Raises:
            FileNotFoundError, ValueError: ``MODEL.WEIGHTS`` can't be read, or doesn't fit, or the
                config cannot work, see ``resolve_config``.
        """
        # DefaultPredictor's constructor isn't called, since it would load the weights as well.
        self.cfg = resolve_config(cfg)
        self.model = build_model(self.cfg).eval()
        StrictCheckpointer(self.model).load(cfg.MODEL.WEIGHTS)
        self.metadata = self._find_metadata()
        self.deep_range = cfg.INPUT.DEEP_RANGE
        sizes = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
        self.aug = ResizeShortestEdge(*sizes)
        self.input_format = cfg.INPUT.FORMAT

    def _find_metadata(self) -> Metadata:
        if self.cfg.DATASETS.TEST:
            return MetadataCatalog.get(self.cfg.DATASETS.TEST[0])
        classes = self.model.classes
        return Metadata(name="no dataset") if classes is None else classes.metadata()

    def __call__(self, original_image: np.ndarray) -> dict:
        """Predicts on one image, of any size from one pixel on.

        Args:
            original_image: H×W×3, BGR, in 0 … 255: uint8, or whole or floating-point numbers,
                which are rounded; uint16 in 0 … ``INPUT.DEEP_RANGE``. The image may also be grey
                (H×W, H×W×1). A fourth channel (transparency) is ignored.

        Returns:
            The model's output for the image, at its size.

        Raises:
            ValueError: the array has no pixels, has its channels first, has two channels, or holds
                several images; its values are out of range, or look like those of another range
                (floats in 0 … 1, 8-bit values in uint16); or it is not an array, such as the None
                that cv2.imread returns.
        """
        return self.predict_batch([original_image])[0]

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[dict]:
        """Predicts on several images at once, each as ``__call__`` takes it.

        Images of different sizes are padded to one, which moves results a little, unless
        ``MODEL.DETR.BATCH_INVARIANT`` is set; frames of a video don't need padding.

        Raises:
            ValueError: one of them is not an image; see ``__call__``.
        """
        inputs = [self._input_of(to_uint8_colors(image, self.deep_range)) for image in images]
        with torch.no_grad():
            return self.model(inputs)

    def _input_of(self, image: np.ndarray) -> dict:
        """Converts an H×W×3 BGR image to the input that ``DefaultPredictor`` gives to the model."""
        if self.input_format == "RGB":
            image = image[:, :, ::-1]
        resized = self.aug.get_transform(image).apply_image(image)
        height, width = image.shape[:2]
        tensor = torch.as_tensor(resized.astype(np.float32).transpose(2, 0, 1))
        return {"image": tensor, "height": height, "width": width}


def require_names(predictor: Predictor) -> None:
    """Checks that a dataset or the weights tell the names of the classes, which pictures show.

    Raises:
        ValueError: neither does.
    """
    if not predictor.cfg.DATASETS.TEST and predictor.model.classes is None:
        raise ValueError(
            "DATASETS.TEST is empty, and MODEL.WEIGHTS doesn't hold the names of classes either: "
            "name a dataset that does."
        )


def predict_stream(
    predictor: Predictor,
    images: Iterable[tuple[Any, np.ndarray]],
    batch_size: int,
    on_error: Callable[[Any, ValueError], None],
) -> Iterator[tuple[Any, np.ndarray, dict]]:
    """Predicts on images one batch after the other; no more than a batch is held in memory.

    Args:
        predictor: predicts on the batches.
        images: pairs of a name and an image.
        batch_size: number of images that go through the network together.
        on_error: is called with the name of an image that the model can't take, and the error. The
            other images of its batch are still predicted.

    Yields:
        The name, the image, and the model's output for it.
    """
    batch: list[tuple[Any, np.ndarray]] = []
    for named in images:
        batch.append(named)
        if len(batch) == batch_size:
            yield from _predict_batch(predictor, batch, on_error)
            batch = []
    if batch:
        yield from _predict_batch(predictor, batch, on_error)


def _predict_batch(
    predictor: Predictor,
    batch: list[tuple[Any, np.ndarray]],
    on_error: Callable[[Any, ValueError], None],
) -> Iterator[tuple[Any, np.ndarray, dict]]:
    try:
        outputs = predictor.predict_batch([image for _, image in batch])
    except ValueError as error:
        if len(batch) == 1:
            on_error(batch[0][0], error)
        else:
            for one in batch:
                yield from _predict_batch(predictor, [one], on_error)
        return
    for (name, image), output in zip(batch, outputs, strict=True):
        yield name, image, output


def picture_config(cfg: CfgNode, view: str = "panoptic") -> CfgNode:
    """Returns the config of a model that predicts only what a picture shows.

    A model with masks predicts the panoptic picture, and boxes for the view "boxes". A model
    without masks predicts the instances whose score is high enough to be drawn.
    """
    cfg = cfg.clone()
    cfg.defrost()
    detr = cfg.MODEL.DETR
    if detr.MASK_ON and detr.TEST.PANOPTIC_ON:
        detr.TEST.INSTANCES_ON = False
        detr.TEST.RAW_ON = view == "boxes"
    else:
        threshold = max(detr.TEST.INSTANCE_SCORE_THRESH, MIN_INSTANCE_SCORE)
        detr.TEST.INSTANCE_SCORE_THRESH = threshold
    cfg.freeze()
    return cfg

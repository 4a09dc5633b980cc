"""Options of an export, and checks whether a model can be exported."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from torch.fx.experimental import _config as symbolic_config

from detr_d2.extras import require_extra
from detr_d2.modeling import DETR

# Suffixes of file names by format.
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
FORMS = ("panoptic", "raw")
# Smallest side of an image of fixed size: its coarsest map has more than one row and column.
MIN_SIDE = 33


@dataclass(frozen=True)
class ExportOptions:
    """How a model is exported.

    Attributes:
        format: "onnx" or "torch". Programs of torch refuse images of one row or column of features
            (``MIN_SIDE``) and, in the form "raw", batches of one: they are traced with larger ones.
        form: "panoptic", from one image to its panoptic picture, or "raw", from a batch to logits,
            boxes and masks.
        size: the only (height, width) of images that the graph takes; None: any size.
        top_k: number of best queries that get masks; None: all that compete for pixels
            ("panoptic"), or all ("raw").
    """

    format: str = "onnx"
    form: str = "panoptic"
    size: tuple[int, int] | None = None
    top_k: int | None = None

    def check(self, cfg: CfgNode) -> None:
        """Checks that the options fit each other and a model of this config.

        Raises:
            ValueError: an option doesn't fit; the message names it.
            ImportError: the packages that write ONNX are missing, or PyTorch is too old.
        """
        if self.format not in SUFFIXES:
            raise ValueError(f"--format {self.format!r}: there are {', '.join(SUFFIXES)}.")
        if self.form not in FORMS:
            raise ValueError(f"--form {self.form!r}: there are {', '.join(FORMS)}.")
        if self.size is not None and min(self.size) < MIN_SIDE:
            height, width = self.size
            raise ValueError(
                f"--size {height} {width}: images need at least {MIN_SIDE} pixels a side."
            )
        num_queries = cfg.MODEL.DETR.NUM_QUERIES
        if self.top_k is not None and not 1 <= self.top_k <= num_queries:
            raise ValueError(
                f"--top-k {self.top_k}: the model has {num_queries} queries "
                "(MODEL.DETR.NUM_QUERIES), of which at least one and at most all get masks."
            )
        if not cfg.MODEL.DETR.MASK_ON:
            raise ValueError(
                f"--form {self.form}: it holds masks, and this model makes none: "
                "MODEL.DETR.MASK_ON is False, or only the stage 'boxes' has been trained. Name the "
                "weights of a model with masks, MODEL.WEIGHTS model_final.pth."
            )
        if not hasattr(symbolic_config, "backed_size_oblivious"):
            raise ImportError(
                f"Exporting needs a newer PyTorch than {torch.__version__}: 2.8 or later. Training "
                "and prediction don't; the model can be exported in another environment."
            )
        if self.format == "onnx":
            require_extra("export", "Writing ONNX needs", ("onnx", "onnxscript"))


def check_exportable(model: DETR) -> None:
    """Checks that a graph can hold a model.

    Raises:
        ValueError: its backbone pads images.
    """
    divisor = model.detector.size_divisibility
    if divisor > 1:
        raise ValueError(
            f"MODEL.BACKBONE.NAME: this backbone pads images to multiples of {divisor} pixels, "
            "which exported graphs don't do."
        )

"""Files of Detectron2's model zoo: backbones to train from, or whole models of other kinds."""

from __future__ import annotations

import re

from detr_d2.checkpoint.checkpoint_errors import CheckpointError, brief
from detr_d2.checkpoint.formats import TORCHVISION, recognise, shorten
from detr_d2.checkpoint.sources import fetch
from detr_d2.checkpoint.weight_files import check_pickle

# Addresses of all models in the zoo that are not just backbones.
WHOLE_MODELS = re.compile(r"(detectron2://|/detectron2/)(?!ImageNetPretrained/).+\.pkl")
WANTED = (
    "Name a trained DETR: the model_final.pth of a training, or a released model of one of the "
    "kinds in docs/weights.md."
)


def whole_model_in(path: str) -> str:
    """Says in a sentence what a ``.pkl`` holds if it is more than a backbone; else empty.

    URLs are judged by their address, without a download.
    """
    if not path.endswith(".pkl"):
        return ""
    if "://" in path:
        if WHOLE_MODELS.search(path):
            return f"{path} is a whole model of Detectron2's model zoo, but not a DETR. {WANTED}"
        return ""
    try:
        names = check_pickle(fetch(path))
    except CheckpointError:
        return ""  # a missing or damaged file is reported when it is used
    kind = recognise(names)
    if kind not in (None, TORCHVISION):
        return (
            f"{path} is {kind.title}, as a pickle of arrays. Save its state dict as a .pth, by "
            "torch.save."
        )
    parts = sorted({name.split(".")[0] for name in names})
    if "backbone" not in parts or len(parts) == 1:
        return ""
    return (
        f"{path} is a whole model of Detectron2 with {shorten(map(brief, parts))}, but not a DETR. "
        f"{WANTED}"
    )

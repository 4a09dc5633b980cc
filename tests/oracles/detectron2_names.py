"""Names of a ResNet's weights in torchvision and timm, as Detectron2 has them."""

from __future__ import annotations

import re

import torch


def detectron2_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A ResNet's weights, from torchvision's names to Detectron2's."""
    renamed = {}
    for key, value in state.items():
        if key.startswith("fc.") or key.endswith("num_batches_tracked"):
            continue
        key = re.sub(r"^(conv1|bn1)", r"stem.\1", key)
        key = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", key)
        key = key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        renamed[re.sub(r"\bbn(\d)", r"conv\1.norm", key)] = value
    return renamed

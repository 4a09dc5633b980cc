"""The small network that DETR and MaskFormer put on each query."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


class ThreeLayers(nn.Module):
    """Three linear layers, with a ReLU after the first and the second."""

    def __init__(self, width: int, outputs: int) -> None:
        """Takes the width of the input, which the hidden layers have as well, and of the output."""
        super().__init__()
        widths = [width, width, width, outputs]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps …×width to …×outputs."""
        *inner, last = self.layers
        for layer in inner:
            x = F.relu(layer(x))
        return last(x)

"""Position encodings of a feature grid.

Axes: B images, D width, h×w the feature grid.
"""

from __future__ import annotations

import math

import torch
from torch import nn


class SinePositionEncoding(nn.Module):
    """Fixed sines and cosines of the normalised row and column (paper, appendix A.4).

    The first D/2 features encode y and the others x; even features are sines, odd ones cosines.
    """

    periods: torch.Tensor  # a buffer

    def __init__(self, hidden_dim: int, temperature: float) -> None:
        """Takes D and the longest wavelength (see ``MODEL.DETR.POSITION_TEMPERATURE``)."""
        super().__init__()
        exponents = 2 * (torch.arange(hidden_dim // 2) // 2) / (hidden_dim // 2)  # D/2
        self.register_buffer("periods", temperature**exponents, persistent=False)

    def forward(self, padding_mask: torch.Tensor) -> torch.Tensor:
        """Encodes each grid point by its position among the valid ones.

        Args:
            padding_mask: B×h×w bool, True = padding.

        Returns:
            B×D×h×w float32.
        """
        valid = ~padding_mask
        return torch.cat(
            [self._encode(valid, axis=1), self._encode(valid, axis=2)], dim=-1
        ).permute(0, 3, 1, 2)

    def _encode(self, valid: torch.Tensor, axis: int) -> torch.Tensor:
        position = valid.cumsum(axis, dtype=torch.float32)  # B×h×w, from 1
        last = position.narrow(axis, position.shape[axis] - 1, 1)
        radians = position / (last + 1e-6) * 2 * math.pi
        phase = radians[..., None] / self.periods  # B×h×w×D/2
        interleaved = torch.stack([phase[..., 0::2].sin(), phase[..., 1::2].cos()], dim=-1)
        return interleaved.flatten(-2)  # B×h×w×D/2


class LearnedPositionEncoding(nn.Module):
    """One trained vector per column and per row, up to 50 of each, concatenated as (x, y)."""

    max_size = 50

    def __init__(self, hidden_dim: int, stride: int = 32) -> None:
        """Takes D, and how many pixels of an image a column or row of the grid stands for."""
        super().__init__()
        self.stride = stride
        self.row_embed = nn.Embedding(self.max_size, hidden_dim // 2)
        self.col_embed = nn.Embedding(self.max_size, hidden_dim // 2)
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    @property
    def max_side(self) -> int:
        """Pixels of the longest side that images may have."""
        return self.max_size * self.stride

    def forward(self, padding_mask: torch.Tensor) -> torch.Tensor:
        """Encodes each grid point by its row and column; padding is encoded like the rest.

        Args:
            padding_mask: B×h×w bool, True = padding; only its shape matters.

        Returns:
            B×D×h×w float32.

        Raises:
            ValueError: the grid is larger than what was trained.
        """
        batch, height, width = padding_mask.shape
        if max(height, width) > self.max_size:
            raise ValueError(
                f"Learned positions reach {self.max_size} rows and columns, which are "
                f"{self.max_side} pixels a side, and the image's grid has {height}×{width}. Lower "
                f"INPUT.MAX_SIZE_TEST / MAX_SIZE_TRAIN to {self.max_side}, or use "
                "MODEL.DETR.POSITION_EMBEDDING 'sine'."
            )
        x = self.col_embed.weight[:width].expand(height, -1, -1)  # h×w×D/2
        y = self.row_embed.weight[:height, None].expand(-1, width, -1)  # h×w×D/2
        return torch.cat([x, y], dim=-1).permute(2, 0, 1).expand(batch, -1, -1, -1)


def build_position_encoding(
    kind: str, hidden_dim: int, temperature: float, stride: int = 32
) -> nn.Module:
    """Builds the encoding named by ``MODEL.DETR.POSITION_EMBEDDING``: "sine" or "learned".

    Args:
        kind: its name.
        hidden_dim: D.
        temperature: of sines, see ``MODEL.DETR.POSITION_TEMPERATURE``.
        stride: of the grid, in pixels of the image.
    """
    if kind == "sine":
        return SinePositionEncoding(hidden_dim, temperature)
    return LearnedPositionEncoding(hidden_dim, stride)

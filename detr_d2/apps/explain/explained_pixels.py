"""What a mask head computed from the image alone: an embedding of every pixel, and its stages.

Axes: n kept queries, C channels; H×W the grid at stride 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from detr_d2.apps.explain.mask_head_stages import Stage


@dataclass(frozen=True)
class ExplainedPixels:
    """The embeddings whose products are the masks.

    Attributes:
        pixels: C×H×W float32.
        queries: n×C float32, of the kept queries.
        stages: those that see only the image, in the order in which they run.
    """

    pixels: torch.Tensor
    queries: torch.Tensor
    stages: list[Stage]

    def similarity(self, row: int) -> torch.Tensor:
        """The cosine between the embedding of a kept query and each pixel's: H×W, in [-1, 1].

        The mask logit is this cosine times the lengths of both embeddings.
        """
        return F.cosine_similarity(self.queries[row, :, None, None], self.pixels, dim=0)

    def colors(self) -> torch.Tensor:
        """H×W×3 in [0, 1]: the three directions in which pixels differ most, as red, green, blue.

        Pixels of similar colours have similar embeddings. In each direction, values are clamped to
        their first and last percentile.
        """
        points = self.pixels.flatten(1).T  # H·W×C
        centred = points - points.mean(0)
        # Of the C×C covariance, since H·W is large. The last eigenvectors are the largest.
        directions = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -3:].flip(1)
        # An eigenvector's sign is arbitrary: let its largest part be positive.
        largest = directions.abs().argmax(0)
        directions = directions * directions[largest, torch.arange(directions.shape[1])].sign()
        parts = centred @ directions  # H·W×3
        ordered = parts.sort(0).values
        last = len(parts) - 1
        low, high = ordered[last // 100], ordered[last - last // 100]
        scaled = ((parts - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        scaled = F.pad(scaled, (0, 3 - scaled.shape[1]))  # fewer than three channels
        return scaled.unflatten(0, self.pixels.shape[1:])

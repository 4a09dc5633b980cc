"""Summaries of what the mask head made of each kept query: some channels of every stage.

Axes: n kept queries, C channels, c shown channels; H×W the grid of the stage.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Number of channels of each stage that are kept for each query.
STAGE_CHANNELS = 5


@dataclass(frozen=True)
class Stage:
    """One stage of the mask head, after its norm and ReLU.

    Attributes:
        name: of the module within the model that gave it.
        channels: C.
        mean: n×H×W float32, over the channels.
        strongest: n×c int64, the channels that vary most over the image, in falling order.
        maps: n×c×H×W float32, these channels.
    """

    name: str
    channels: int
    mean: torch.Tensor
    strongest: torch.Tensor
    maps: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """n, C, H and W."""
        return (len(self.mean), self.channels, *self.mean.shape[1:])

    @classmethod
    def of_norm(cls, name: str, normalised: torch.Tensor) -> Stage:
        """Summarises n×C×H×W, the output of a norm, before the ReLU that follows in place."""
        maps = normalised.float().relu()
        strongest = strongest_channels(maps, STAGE_CHANNELS)
        index = strongest[:, :, None, None].expand(-1, -1, *maps.shape[2:])
        return cls(name, maps.shape[1], maps.mean(1), strongest, maps.gather(1, index))

    @classmethod
    def joined(cls, chunks: list[Stage]) -> Stage:
        """Joins the summaries of the mask head's chunks of queries."""
        first = chunks[0]
        parts = zip(*((c.mean, c.strongest, c.maps) for c in chunks), strict=True)
        return cls(first.name, first.channels, *(torch.cat(part) for part in parts))


def strongest_channels(maps: torch.Tensor, count: int) -> torch.Tensor:
    """Finds the channels that vary most over the grid: …×C×H×W to …×count indices, best first.

    Where there are fewer channels than ``count``, it gives all of them.
    """
    cells = maps.float().flatten(-2)
    # Not by torch.var, which warns where there are no queries.
    spread = (cells - cells.mean(-1, keepdim=True)).square().mean(-1)
    return spread.topk(min(count, spread.shape[-1])).indices

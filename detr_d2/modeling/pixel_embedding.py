"""Embeddings of every pixel of an image and of every query, whose products are masks.

Axes: B images, D width, C channels of an embedding; h×w the res5 grid, later that of a lateral, H×W
the padded batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from detr_d2.modeling.mask_head_base import mask_head_conv
from detr_d2.modeling.three_layers import ThreeLayers


class ChannelNorm(nn.LayerNorm):
    """Norms the channels of each pixel alone, so that neither padding nor other images matter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B×C×h×w to B×C×h×w."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PixelEmbedding(nn.Module):
    """An FPN that makes an embedding of every pixel at stride 4.

    The last convolution gets the row and the column of each pixel as two more channels, as in
    CoordConv (Liu et al. 2018, arXiv:1807.03247): things that look alike differ only in their
    places. MaskFormer has no such channels.
    """

    def __init__(
        self, hidden_dim: int, lateral_channels: Sequence[int], width: int, depth: int
    ) -> None:
        """Takes D, the laterals' channels (coarsest first), C, and the convolutions per stride."""
        super().__init__()
        self.projected_conv = mask_head_conv(hidden_dim, width, kernel_size=1)
        self.memory_conv = mask_head_conv(hidden_dim, width, kernel_size=1)
        # The finest stride takes most of the time, and half the channels suffice there.
        widths = [width] * len(lateral_channels) + [width // 2]
        self.lateral_convs = nn.ModuleList(
            mask_head_conv(i, o, kernel_size=1)
            for i, o in zip(lateral_channels, widths[1:], strict=True)
        )
        self.blocks = nn.ModuleList(
            _convolutions(i, o, depth)
            for i, o in zip(widths, [*widths[1:], widths[-1]], strict=True)
        )
        self.output_conv = mask_head_conv(widths[-1] + 2, width, kernel_size=1)

    @property
    def norms(self) -> list[str]:
        """Names of the norms, in the order in which they run."""
        return [name for name, module in self.named_modules() if isinstance(module, ChannelNorm)]

    def forward(
        self,
        memory: torch.Tensor,
        projected: torch.Tensor,
        padding_mask: torch.Tensor | None,
        *laterals: torch.Tensor,
    ) -> torch.Tensor:
        """Embeds pixels.

        Args:
            memory: B×D×h×w, the encoded image.
            projected: B×D×h×w, the projected res5.
            padding_mask: B×h×w bool, True = padding; None: no padding.
            *laterals: the backbone's outputs at strides 16, 8 and 4, each B×C'×·×·.

        Returns:
            B×C×H/4×W/4.
        """
        x = self.projected_conv(projected) + self.memory_conv(memory)  # B×C×h×w
        x = self.blocks[0](_in_fast_order(x))
        for conv, block, lateral in zip(self.lateral_convs, self.blocks[1:], laterals, strict=True):
            side = conv(lateral)  # B×C×h×w, twice the grid of the last
            x = block(_in_fast_order(F.interpolate(x, size=side.shape[-2:]) + side))
        return self.output_conv(torch.cat([x, _places(x, memory, padding_mask)], dim=1))


class QueryEmbedding(ThreeLayers):
    """From a query, …×D, to the embedding that its pixels should have, …×C."""


def _in_fast_order(x: torch.Tensor) -> torch.Tensor:
    """The order of memory in which a 3×3 convolution takes the least time, gradients included.

    The backbone's order, channels last, is the best of a forward pass; a CPU's backward pass takes
    twice as long with it.
    """
    return x.contiguous() if torch.is_grad_enabled() and x.device.type == "cpu" else x


def _places(
    x: torch.Tensor, memory: torch.Tensor, padding_mask: torch.Tensor | None
) -> torch.Tensor:
    """The place of each pixel of B×C×H/4×W/4 within its image: B×2×H/4×W/4 rows and columns.

    An image goes from -1 to 1 in both directions; what lies beyond is padding. Its extent is that
    of the cells of the res5 grid, B×·×h×w, that it covers, as for the transformer's positions.
    """
    places, dtype = [], torch.promote_types(x.dtype, torch.float32)
    for dim, other in ((2, 3), (3, 2)):
        cells, pixels = memory.shape[dim], x.shape[dim]
        centres = torch.arange(pixels, device=x.device, dtype=dtype) + 0.5
        place = centres / pixels  # H/4 or W/4, in the padded batch
        if padding_mask is None:
            place = place.expand(x.shape[0], -1)
        else:
            covered = (~padding_mask).any(other - 1).sum(1)  # B cells
            place = place * (cells / covered.to(dtype))[:, None]
        shape = [-1, 1, 1, 1]
        shape[dim] = pixels
        places.append((2 * place - 1).view(shape).expand(-1, 1, *x.shape[2:]))
    return torch.cat(places, dim=1).to(x.dtype)


def _convolutions(in_channels: int, out_channels: int, depth: int) -> nn.Sequential:
    """3×3 convolutions, each with norm and ReLU. The last one changes the number of channels."""
    block = nn.Sequential()
    for channels in [in_channels] * (depth - 1) + [out_channels]:
        conv = mask_head_conv(in_channels, channels, kernel_size=3)
        block.extend([conv, ChannelNorm(channels), nn.ReLU(inplace=True)])
    return block

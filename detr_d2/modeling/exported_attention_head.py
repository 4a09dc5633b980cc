"""The mask head in graphs of any image size: like ``AttentionMaskHead``, but without branches.

Axes: B images, k chosen queries of each, D width, M heads; h×w the res5 grid, later the grid of a
map, H×W that of the lateral that it meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from detr_d2.modeling.mask_head_base import ExportedMaskHead
from detr_d2.modeling.upsampled_conv import doubling_kernel

if TYPE_CHECKING:
    from detr_d2.modeling.attention_mask_head import AttentionMaskHead


class ExportedAttentionHead(ExportedMaskHead):
    """Computes what an ``AttentionMaskHead`` does, from its weights, for k queries of each image.

    Sizes decide nothing while it is traced, so that one graph serves all of them.
    """

    head: AttentionMaskHead

    def __init__(self, head: AttentionMaskHead, strides: Sequence[int]) -> None:
        """Takes over the modules of a mask head.

        Args:
            head: in evaluation mode.
            strides: of res5 and of the laterals, in their order.
        """
        super().__init__(head)
        hidden_dim = head.attention_map.q_proj.in_features
        attention_weight = head.input_conv.weight[:, hidden_dim:]
        self.attention_weight = nn.Parameter(attention_weight.contiguous(), False)
        self.upsampled_convs = nn.ModuleList(
            _upsampled_conv(conv.get_parameter("weight"), old / new)
            for conv, old, new in zip(head.convs[1:], strides, strides[1:], strict=False)
        )

    def forward(
        self,
        queries: torch.Tensor,
        memory: torch.Tensor,
        projected: torch.Tensor,
        laterals: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Predicts masks, see ``ExportedMaskHead``."""
        head, batch = self.head, queries.shape[:2]
        first, *others = (part[:, None] for part in head.image_parts(projected, laterals))
        x = head.attention_map(queries, memory, None).flatten(0, 1)  # Bk×M×h×w
        x = F.conv2d(x, self.attention_weight, padding=1)  # Bk×(D+M)×h×w
        x = (x.unflatten(0, batch) + first).flatten(0, 1)
        x = F.relu(head.input_norm(x))
        x = F.relu(head.norms[0](head.convs[0](x)))
        for conv, norm, part in zip(self.upsampled_convs, head.norms[1:], others, strict=True):
            x = conv(x, part.shape[-2:])
            x = (x.unflatten(0, batch) + part).flatten(0, 1)
            x = F.relu(norm(x))  # Bk×D/2ᵏ⁺¹×H×W
        return head.output_conv(x).squeeze(1).unflatten(0, batch)


def _upsampled_conv(weight: torch.Tensor, factor: float) -> nn.Module:
    return DoublingConv(weight) if factor == 2 else ResizingConv(weight)


class DoublingConv(nn.Module):
    """``conv3x3_upsampled`` from h×w to 2h or 2h - 1 rows and 2w or 2w - 1 columns.

    The correction at the border of odd sides is always computed, and multiplied by 0 at even ones.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        """Takes C'×C×3×3."""
        super().__init__()
        self.kernel = nn.Parameter(doubling_kernel(weight).contiguous(), False)
        self.below = nn.Parameter(weight[:, :, 2:].contiguous(), False)  # C'×C×1×3
        self.right = nn.Parameter(weight[:, :, :, 2:].contiguous(), False)  # C'×C×3×1

    def forward(self, x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """N×C×h×w to N×C'×H×W."""
        height, width = size
        y = F.conv_transpose2d(x, self.kernel, stride=2, padding=1)
        # A map of odd sides ends a row and a column earlier than y: their part is subtracted.
        column = F.interpolate(x[..., -1:], scale_factor=(2.0, 1.0))
        column = F.conv2d(column, self.right, padding=(1, 0)) * (width % 2)  # N×C'×2h×1
        y = torch.cat([y.narrow(3, 0, width - 1), y.narrow(3, width - 1, 1) - column], dim=3)
        row = F.interpolate(x[..., -1:, :], scale_factor=(1.0, 2.0)).narrow(3, 0, width)
        row = F.conv2d(row, self.below, padding=(0, 1)) * (height % 2)  # N×C'×1×W
        return torch.cat([y.narrow(2, 0, height - 1), y.narrow(2, height - 1, 1) - row], dim=2)


class ResizingConv(nn.Module):
    """``conv3x3_upsampled`` between any two sizes."""

    def __init__(self, weight: torch.Tensor) -> None:
        """Takes C'×C×3×3."""
        super().__init__()
        self.weight = nn.Parameter(weight, False)

    def forward(self, x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """N×C×h×w to N×C'×H×W."""
        return F.conv2d(F.interpolate(x, size=tuple(size)), self.weight, padding=1)

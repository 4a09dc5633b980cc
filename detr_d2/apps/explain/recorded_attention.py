"""Attention weights, from what the projections of an attention module gave.

The fused attention of the forward pass never has them. They are computed here from the recorded
outputs of the module's own q_proj and k_proj.

Axes: M heads, T rows (what attends), S grid points (what is attended to), D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RecordedAttention:
    """One call of a ``MultiHeadAttention`` for one image.

    Attributes:
        name: of the module within the model.
        q: T×D, output of its q_proj.
        k: S×D, output of its k_proj.
        num_heads: M.
        padding: S bool, True = padding, which gets weight 0.
    """

    name: str
    q: torch.Tensor
    k: torch.Tensor
    num_heads: int
    padding: torch.Tensor

    def weights(self, rows: torch.Tensor | None = None) -> torch.Tensor:
        """softmax(q·k / √(D/M)).

        Args:
            rows: int64 indices of those of the T rows that are wanted; None: all.

        Returns:
            M×T×S float32; each row of each head sums to one.
        """
        q = self._split_heads(self.q if rows is None else self.q[rows])  # M×T×D/M
        k = self._split_heads(self.k)  # M×S×D/M
        logits = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        return logits.masked_fill(self.padding, float("-inf")).softmax(-1)

    def _split_heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().unflatten(1, (self.num_heads, -1)).transpose(0, 1)

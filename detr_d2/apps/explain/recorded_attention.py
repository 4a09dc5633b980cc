"""Attention weights, computed from the outputs of an attention module's projections.

The fused attention of the forward pass never makes the weights. They are computed here from the
recorded outputs of the module's own q_proj and k_proj.

Axes: M heads, T rows (what attends), S grid points (what is attended to), E width of the
projections: the transformer's D, or more where they hold content and position side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RecordedAttention:
    """One call of an attention module for one image.

    Attributes:
        name: of the module within the model.
        q: T×E, the output of its q_proj.
        k: S×E, the output of its k_proj.
        num_heads: M.
        padding: S bool, True = padding, which gets weight 0.
    """

    name: str
    q: torch.Tensor
    k: torch.Tensor
    num_heads: int
    padding: torch.Tensor

    def weights(self, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Computes softmax(q·k / √(E/M)).

        Args:
            rows: int64 indices of those of the T rows that are wanted; None: all.

        Returns:
            M×T×S float32; each row of each head sums to one.
        """
        q = self._split_heads(self.q if rows is None else self.q[rows])  # M×T×E/M
        k = self._split_heads(self.k)  # M×S×E/M
        logits = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        return logits.masked_fill(self.padding, float("-inf")).softmax(-1)

    def _split_heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().unflatten(1, (self.num_heads, -1)).transpose(0, 1)

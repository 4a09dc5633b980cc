"""The interface of a detector's transformer: how it is built, called and explained.

Axes: B images, Q queries, D width, L decoder layers; h×w the res5 grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from torch import nn

from detr_d2.modeling.targets import Target

DETR_TRANSFORMER_REGISTRY = Registry("DETR_TRANSFORMER")
DETR_TRANSFORMER_REGISTRY.__doc__ = """
Transformers, named by ``MODEL.DETR.TRANSFORMER_NAME``. Each is a :class:`DetectorTransformer`,
built as ``Transformer(cfg)``.
"""


def build_transformer(cfg: CfgNode) -> DetectorTransformer:
    """Builds ``MODEL.DETR.TRANSFORMER_NAME`` from the whole config."""
    return DETR_TRANSFORMER_REGISTRY.get(cfg.MODEL.DETR.TRANSFORMER_NAME)(cfg)


@dataclass(frozen=True)
class Transformed:
    """The output of a transformer for a batch.

    Attributes:
        hidden: L×B×Q×D, the normalised output of every decoder layer.
        memory: B×D×h×w, the encoded image.
        reference_boxes: L×B×Q×2 or ×4, or what broadcasts to it: centres or boxes (cx, cy, w, h) in
            [0, 1] which the box head refines; None: it predicts boxes from nothing.
        losses: further weighted losses, in training.
    """

    hidden: torch.Tensor
    memory: torch.Tensor
    reference_boxes: torch.Tensor | None = None
    losses: Mapping[str, torch.Tensor] = field(default_factory=dict)


class DetectorTransformer(nn.Module):
    """A module that encodes images and decodes object queries.

    Subclasses define ``forward``.

    Attributes:
        needs_targets: whether ``forward`` gets the targets in training, as denoising needs them.
    """

    needs_targets = False

    def forward(
        self,
        features: torch.Tensor,
        padding_mask: torch.Tensor | None,
        positions: torch.Tensor,
        query_embed: torch.Tensor,
        targets: Sequence[Target] | None = None,
    ) -> Transformed:
        """Encodes the images and decodes the queries.

        Args:
            features: B×D×h×w, the projected res5.
            padding_mask: B×h×w bool, True = padding; None where no image is padded.
            positions: B×D×h×w.
            query_embed: Q×D, one trained vector for each query.
            targets: of the B images, where ``needs_targets`` and in training; else None.
        """
        raise NotImplementedError

    def explained_attention(self) -> dict[str, list[str]]:
        """Names of attention modules, by layer, whose weights an explanation shows.

        Under "encoder" self-attention over the grid, under "decoder" attention of queries to the
        grid; by default neither. Each module has ``num_heads`` and modules ``q_proj`` and
        ``k_proj``, whose outputs, B×T×C each of any width C, are multiplied head by head.
        """
        return {}

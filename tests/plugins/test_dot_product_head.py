"""A mask head as a plug-in: masks are products of each query with each pixel.

Axes: N (image, query) pairs, D width, C channels; H×W the batch.
"""

import torch
import torch.nn.functional as F
from torch import nn

from detr_d2.modeling import DETR_MASK_HEAD_REGISTRY, MaskHead

CHANNELS = 16


@DETR_MASK_HEAD_REGISTRY.register()
class DotProductHead(MaskHead):
    """Embeds each pixel at stride 4 and each query, and multiplies them."""

    def __init__(self, cfg, lateral_channels) -> None:
        super().__init__()
        dim = cfg.MODEL.DETR.HIDDEN_DIM
        self.memory = nn.Conv2d(dim, CHANNELS, kernel_size=1)
        self.laterals = nn.ModuleList(nn.Conv2d(c, CHANNELS, 1) for c in lateral_channels)
        self.query = nn.Linear(dim, CHANNELS)

    def forward(
        self, *, queries, memory, projected, laterals, padding_mask, image_index, query_index
    ):
        pixels = self.memory(memory)
        for conv, lateral in zip(self.laterals, laterals, strict=True):
            side = conv(lateral)
            pixels = F.interpolate(pixels, size=side.shape[-2:]) + side
        chosen = self.query(queries)[image_index, query_index]  # N×C
        return torch.einsum("nc,nchw->nhw", chosen, pixels[image_index])  # N×H/4×W/4


def test_it_trains_predicts_exports_and_is_explained(travel):
    journey = travel("MODEL.DETR.MASK_HEAD.NAME", "DotProductHead")
    assert isinstance(journey.model.mask_head, DotProductHead)
    assert journey.segments_info and journey.equal_ids > 0.999
    assert "This mask head names no stages, so only its mask logits are shown." in journey.page

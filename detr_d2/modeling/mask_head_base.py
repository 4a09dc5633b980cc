"""The interface of mask heads: how they are built, called, exported and explained.

Axes: B images, Q queries, k chosen queries of each image, N (image, query) pairs, D width, M heads,
C channels; h×w the res5 grid, H×W the padded batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from fvcore.nn.weight_init import c2_xavier_fill
from torch import nn

from detr_d2.config_checks import PART_CHECKS

DETR_MASK_HEAD_REGISTRY = Registry("DETR_MASK_HEAD")
DETR_MASK_HEAD_REGISTRY.__doc__ = """
Mask heads, named by ``MODEL.DETR.MASK_HEAD.NAME``. Each is a :class:`MaskHead`, built as
``Head(cfg, lateral_channels)``.
"""


def build_mask_head(cfg: CfgNode, lateral_channels: Sequence[int]) -> MaskHead:
    """Builds ``MODEL.DETR.MASK_HEAD.NAME``.

    Args:
        cfg: the whole config.
        lateral_channels: channels of the backbone's outputs at strides 16, 8 and 4.
    """
    return DETR_MASK_HEAD_REGISTRY.get(cfg.MODEL.DETR.MASK_HEAD.NAME)(cfg, lateral_channels)


def check_mask_head(cfg: CfgNode) -> None:
    """Calls ``check_config`` of the mask head that a config names.

    It does nothing for a head that isn't registered yet.

    Raises:
        ValueError: the head cannot take a value; the message names the key.
    """
    name = cfg.MODEL.DETR.MASK_HEAD.NAME
    if cfg.MODEL.DETR.MASK_ON and name in DETR_MASK_HEAD_REGISTRY:
        DETR_MASK_HEAD_REGISTRY.get(name).check_config(cfg)


PART_CHECKS.append(check_mask_head)


def required_mask_head(mask_head: MaskHead | None) -> MaskHead:
    """The mask head of a model that may have none.

    Raises:
        ValueError: there is none.
    """
    if mask_head is None:
        raise ValueError("The model has no masks: MODEL.DETR.MASK_ON is False.")
    return mask_head


def mask_head_conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    """A convolution that keeps the grid, with the initial values of the reference's mask head."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    c2_xavier_fill(conv)
    return conv


@dataclass(frozen=True)
class ExplainedModules:
    """Names of a mask head's own modules whose outputs show how it works.

    Attributes:
        attention_maps: the module that gives B×Q×M×h×w; None where there are no such maps.
        stages: the norms after each convolution, in the order in which they run. Each gives
            N×C×·×·, to which a ReLU is applied; chunks of queries may come in several calls.
        image_stages: likewise of convolutions that see the image alone; each gives B×C×·×·.
        pixel_embedding: the module that gives B×C×H/4×W/4, an embedding of every pixel; None where
            there is none.
        query_embedding: the module that gives N×C, what the pixels of each query are compared with.
    """

    attention_maps: str | None = None
    stages: tuple[str, ...] = ()
    image_stages: tuple[str, ...] = ()
    pixel_embedding: str | None = None
    query_embedding: str | None = None


class MaskHead(nn.Module):
    """A module that predicts a mask for each chosen query.

    Subclasses define ``forward``. The other methods have defaults that work for any of them.
    """

    @classmethod
    def check_config(cls, cfg: CfgNode) -> None:
        """Refuses values of keys that the head cannot take; by default none.

        Raises:
            ValueError: there is such a value; the message names the key.
        """

    def forward(
        self,
        *,
        queries: torch.Tensor,
        memory: torch.Tensor,
        projected: torch.Tensor,
        laterals: Sequence[torch.Tensor],
        padding_mask: torch.Tensor | None,
        image_index: torch.Tensor,
        query_index: torch.Tensor,
    ) -> torch.Tensor:
        """Predicts the masks of N chosen queries.

        Args:
            queries: B×Q×D, the last decoder layer's output.
            memory: B×D×h×w, the encoded image.
            projected: B×D×h×w, the projected res5.
            laterals: the backbone's outputs at strides 16, 8 and 4, each B×C×·×·.
            padding_mask: B×h×w bool, True = padding; None: no padding.
            image_index: N int64, in 0 … B-1.
            query_index: N int64, in 0 … Q-1.

        Returns:
            N×H/4×W/4 mask logits. Zero queries give a 0×H/4×W/4 tensor.
        """
        raise NotImplementedError

    def for_images(self, **images: Any) -> Callable[..., torch.Tensor]:
        """Prepares to predict masks of some images, several times.

        A head may compute here, once, what depends on the images alone. By default it computes
        nothing.

        Args:
            **images: ``memory``, ``projected``, ``laterals`` and ``padding_mask`` of ``forward``.

        Returns:
            A function of ``queries``, ``image_index`` and ``query_index``, given by these names,
            that returns what ``forward`` does.
        """
        return partial(self, **images)

    def exported(self, strides: Sequence[int]) -> nn.Module:
        """The head as a graph of any image size holds it, see ``ExportedMaskHead``.

        Args:
            strides: of res5 and of the laterals, in their order.
        """
        return ExportedMaskHead(self)

    def explained_modules(self) -> ExplainedModules:
        """Names the modules that an explanation shows; by default it shows the masks alone."""
        return ExplainedModules()


class ExportedMaskHead(nn.Module):
    """A mask head that is asked for k queries of each image, none of them padded."""

    def __init__(self, head: MaskHead) -> None:
        """Takes a mask head in evaluation mode, whose modules it shares."""
        super().__init__()
        self.head = head

    def forward(
        self,
        queries: torch.Tensor,
        memory: torch.Tensor,
        projected: torch.Tensor,
        laterals: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Predicts masks.

        Args:
            queries: B×k×D, the last decoder layer's output, of the queries whose masks are wanted.
            memory: B×D×h×w, the encoded image.
            projected: B×D×h×w, the projected res5.
            laterals: the backbone's outputs at strides 16, 8 and 4, each B×C×·×·.

        Returns:
            B×k×H/4×W/4 mask logits.
        """
        batch, chosen, _ = queries.shape
        images = torch.arange(batch, device=queries.device)[:, None].expand(batch, chosen)
        places = torch.arange(chosen, device=queries.device).expand(batch, chosen)
        masks = self.head(
            queries=queries,
            memory=memory,
            projected=projected,
            laterals=laterals,
            padding_mask=None,
            image_index=images.flatten(),
            query_index=places.flatten(),
        )
        return masks.unflatten(0, (batch, chosen))

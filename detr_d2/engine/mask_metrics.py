"""Metrics of the masks and the attention of matched queries during training.

Axes: B images, Q queries, N matched (image, query) pairs, M heads; H×W the padded batch, h×w the
res5 grid; S sampled pixels or grid points.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.utils.events import EventStorage
from torch import nn

# Masks are compared at every fourth pixel in both directions, because the model predicts them at
# stride 4.
_STRIDE = 4


def mask_ious(mask_logits: torch.Tensor, target_masks: torch.Tensor) -> torch.Tensor:
    """The IoU of each mask with its target. A mask consists of the pixels with a logit above 0.

    Args:
        mask_logits: N×H×W.
        target_masks: N×H×W bool.

    Returns:
        N values in 0 … 1; 1 if neither the mask nor the target has a pixel.
    """
    masks = mask_logits > 0
    intersection, union = (masks & target_masks).sum((1, 2)), (masks | target_masks).sum((1, 2))
    return torch.where(union > 0, intersection / union, 1.0)


def mask_similarities(mask_logits: torch.Tensor, image_index: torch.Tensor) -> torch.Tensor:
    """The cosine similarity of each two masks of an image, computed on their probabilities.

    Args:
        mask_logits: N×H×W.
        image_index: N int64, the image of each mask.

    Returns:
        A value for each pair of masks of the same image: 1 for masks that are equal up to a factor,
        0 for masks that don't overlap.
    """
    log_probabilities = F.logsigmoid(mask_logits[:, ::_STRIDE, ::_STRIDE].flatten(1))
    # A cosine ignores factors. Division by the peak keeps probabilities near 0 from underflowing.
    peaks = log_probabilities.amax(1, keepdim=True)
    masks = F.normalize((log_probabilities - peaks).exp())  # N×S
    of_one_image = image_index[:, None] == image_index
    return (masks @ masks.T)[of_one_image.triu(diagonal=1)].clamp(max=1)


def attention_entropies(attention: torch.Tensor, num_points: torch.Tensor) -> torch.Tensor:
    """The normalized entropy of each head's attention map, whatever the head's share of attention.

    Args:
        attention: N×M×h×w, 0 in padding.
        num_points: N, the number of grid points that aren't padding.

    Returns:
        N×M in 0 … 1: 0 if all attention is on one point or there is none, 1 if it is equal on all
        points.
    """
    maps = attention.flatten(2)  # N×M×S
    maps = maps / maps.sum(-1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    # With a single point the entropy is 0, so any divisor will do.
    most = num_points.clamp(min=2).log()[:, None]
    return (torch.special.entr(maps).sum(-1) / most).clamp(max=1)


class MaskRecorder:
    """Records the masks and attention of a DETR in training, until ``close`` is called.

    It uses hooks on the training's own forward pass and doesn't change the results. Figures of
    attention come from the module that the mask head names for its attention maps, see
    ``MaskHead.explained_modules``. Where it names none, there are figures of its masks alone.
    """

    def __init__(self, model: nn.Module) -> None:
        """Starts to record a DETR with a mask head."""
        detr: Any = model  # the engine imports no classes of models
        self.criterion = detr.criterion
        self.ious: list[torch.Tensor] = []
        self.similarities: list[torch.Tensor] = []
        self.empty: list[torch.Tensor] = []
        self.entropies: list[torch.Tensor] = []
        self.shares: list[torch.Tensor] = []
        self._attention: torch.Tensor | None = None  # B×Q×M×h×w, of the call that is running
        self._handles = [detr.mask_head.register_forward_hook(self._see_head, with_kwargs=True)]
        name = detr.mask_head.explained_modules().attention_maps
        if name is not None:
            attention_maps = detr.mask_head.get_submodule(name)
            self._handles.append(attention_maps.register_forward_hook(self._see_attention))
        self.criterion.mask_observer = self._see_masks

    def close(self) -> None:
        """Removes all hooks from the model."""
        self.criterion.mask_observer = None
        for handle in self._handles:
            handle.remove()

    def put(self, storage: EventStorage) -> None:
        """Writes the means of all recorded values, and a histogram of the IoUs."""
        seen = {
            "metrics/mask_iou": self.ious,
            "metrics/mask_similarity": self.similarities,
            "metrics/empty_masks": self.empty,
        }
        for name, values in seen.items():
            _put_mean(storage, name, values)
        for name, values in (
            ("attention_entropy", self.entropies),
            ("attention_share", self.shares),
        ):
            heads = torch.cat(values).unbind(1) if values else ()
            for number, head in enumerate(heads):
                _put_mean(storage, f"{name}/head_{number}", [head])
        ious = torch.cat(self.ious) if self.ious else torch.empty(0)
        if len(ious):
            # The histogram has its own name, because TensorBoard shows only the scalar of a name.
            storage.put_histogram("metrics/mask_iou_of_queries", ious.cpu(), bins=20)

    @torch.no_grad()
    def _see_masks(
        self, mask_logits: torch.Tensor, target_masks: torch.Tensor, image_index: torch.Tensor
    ) -> None:
        self.ious.append(mask_ious(mask_logits, target_masks))
        self.similarities.append(mask_similarities(mask_logits, image_index))
        self.empty.append((mask_logits <= 0).all(2).all(1).float())

    def _see_attention(self, module: nn.Module, args: tuple, attention: torch.Tensor) -> None:
        self._attention = attention

    @torch.no_grad()
    def _see_head(self, module: nn.Module, args: tuple, inputs: dict[str, Any], masks: Any) -> None:
        attention, self._attention = self._attention, None
        if attention is None:
            return
        image_index = inputs["image_index"]
        attention = attention[image_index, inputs["query_index"]].float()  # N×M×h×w
        num_points = attention.new_full((len(attention),), attention.shape[-2:].numel())
        if inputs["padding_mask"] is not None:
            num_points -= inputs["padding_mask"][image_index].sum((1, 2))
        self.entropies.append(attention_entropies(attention, num_points))
        shares = attention.sum((2, 3))
        if (shares < 0.999).any():  # Otherwise each head sums to 1, and shares mean nothing.
            self.shares.append(shares)


def _put_mean(storage: EventStorage, name: str, values: list[torch.Tensor]) -> None:
    numbers = torch.cat(values) if values else torch.empty(0)
    if len(numbers):
        # No smoothing: Detectron2's median of 20 values would span 20 lines of the log.
        storage.put_scalar(name, numbers.mean().item(), smoothing_hint=False)

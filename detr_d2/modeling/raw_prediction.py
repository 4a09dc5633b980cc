"""The network's prediction for one image, before queries are chosen and masks are merged.

Axes: Q queries, K classes, n chosen queries; h×w the mask logits (stride 4), H'×W' the output.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from detectron2.structures import Instances
from torch.profiler import record_function

from detr_d2.modeling.detector import DetectorOutput
from detr_d2.modeling.inference import (
    QuerySelection,
    make_instances,
    select_instance_queries,
    select_panoptic_queries,
    select_things,
)
from detr_d2.modeling.inference_options import InferenceOptions, PanopticOptions
from detr_d2.modeling.mask_head_base import MaskHead, required_mask_head
from detr_d2.modeling.merging import MergeRound, merge_panoptic
from detr_d2.modeling.upsampling import ImageSizes


class RawPrediction:
    """Queries of one image; thresholds and merging can be changed without another forward pass.

    Each query's mask is made when it is first wanted, and kept.

    Attributes:
        logits: Q×(K+1) float32.
        boxes_cxcywh: Q×4 float32, relative to the image, in [0, 1].
        is_thing: K bool.
        sizes: the sizes that the image goes through.
        options: what the model was asked for.
    """

    def __init__(
        self,
        detected: DetectorOutput,
        mask_head: MaskHead | None,
        is_thing: torch.Tensor,
        sizes: ImageSizes,
        options: InferenceOptions,
    ) -> None:
        """
        Args:
            detected: what the detector made of this image alone (B = 1).
            mask_head: makes masks of it; None for a model without masks.
            is_thing: K bool.
            sizes: the sizes that the image goes through.
            options: outputs, thresholds and precision.
        """
        self.logits = detected.logits[-1, 0].float()
        self.boxes_cxcywh = detected.boxes_cxcywh[-1, 0].float()
        self.is_thing = is_thing
        self.sizes = sizes
        self.options = options
        self._detected = detected
        self._mask_head = mask_head
        self._masks_of: Callable[..., torch.Tensor] | None = None  # see ``MaskHead.for_images``
        self._mask_logits: torch.Tensor | None = None  # of the queries wanted so far
        self._row_of_query = torch.full((len(self.logits),), -1, device=self.logits.device)

    @property
    def has_masks(self) -> bool:
        return self._mask_head is not None

    def masks(self, query_index: torch.Tensor) -> torch.Tensor:
        """Mask logits of chosen queries.

        Args:
            query_index: n int64.

        Returns:
            n×h×w logits of the padded batch.

        Raises:
            ValueError: the model has no masks.
        """
        mask_logits = self._require_masks(query_index)
        return mask_logits[self._row_of_query[query_index]]

    def instances(self, score_thresh: float) -> Instances:
        """Things whose best class has a score above a threshold in [0, 1]."""
        return self._instances(self._select_instances(score_thresh), self.has_masks)

    def panoptic(
        self,
        options: PanopticOptions | None = None,
        on_round: Callable[[MergeRound], None] | None = None,
    ) -> tuple[torch.Tensor, list[dict]]:
        """The panoptic picture, see ``merge_panoptic``.

        Args:
            options: how it is made; None: as the model's options say.
            on_round: is told of each round of merging.
        """
        options = options or self.options.panoptic
        return self._merge(self.competing(options.score_thresh), options, on_round)

    def competing(self, score_thresh: float) -> QuerySelection:
        """The queries that compete for pixels, see ``competing_queries``."""
        return select_panoptic_queries(self.logits, score_thresh)

    def result(self) -> dict:
        """Makes the outputs of the model for the image; see ``DETR.forward``."""
        options = self.options
        things = kept = None
        with_masks = self.has_masks and options.instance_masks_on
        if options.instances_on:
            things = self._select_instances(options.instance_score_thresh)
        if options.panoptic_on and self.has_masks:
            kept = self.competing(options.panoptic.score_thresh)
        with_mask = [x for x in (things if with_masks else None, kept) if x is not None]
        if with_mask:  # one call for both costs less than two
            self._require_masks(*(selection.query_index for selection in with_mask))

        result: dict = {}
        if things is not None:
            result["instances"] = self._instances(things, with_masks)
        if kept is not None:
            result["panoptic_seg"] = self._merge(kept, options.panoptic)
        if options.raw_on:
            result["raw"] = self
        return result

    def _select_instances(self, score_thresh: float | None) -> QuerySelection:
        if score_thresh is None:
            competing = self.competing(self.options.panoptic.score_thresh)
            return select_things(competing, self.is_thing)
        return select_instance_queries(self.logits, self.is_thing, score_thresh)

    def _instances(self, selection: QuerySelection, with_masks: bool) -> Instances:
        masks = self.masks(selection.query_index) if with_masks else None
        boxes_cxcywh = self.boxes_cxcywh[selection.query_index]
        return make_instances(selection, boxes_cxcywh, masks, self.sizes)

    def _merge(
        self,
        kept: QuerySelection,
        options: PanopticOptions,
        on_round: Callable[[MergeRound], None] | None = None,
    ) -> tuple[torch.Tensor, list[dict]]:
        masks = self.masks(kept.query_index)
        with record_function("merge"):
            return merge_panoptic(kept, masks, self.is_thing, self.sizes, options, on_round)

    def _require_masks(self, *wanted: torch.Tensor) -> torch.Tensor:
        """Makes the masks of those queries, given by their indices, that have none yet.

        Returns:
            The masks of all queries that have been wanted so far.
        """
        is_missing = torch.zeros_like(self._row_of_query, dtype=torch.bool)
        for query_index in wanted:
            is_missing[query_index] = True
        missing = (is_missing & (self._row_of_query < 0)).nonzero()[:, 0]
        if self._mask_logits is None:
            self._mask_logits = self._make_masks(missing)
        elif len(missing):
            self._mask_logits = torch.cat([self._mask_logits, self._make_masks(missing)])
        rows = torch.arange(len(self._mask_logits), device=missing.device)
        self._row_of_query[missing] = rows[len(rows) - len(missing) :]
        return self._mask_logits

    @torch.no_grad()
    def _make_masks(self, query_index: torch.Tensor) -> torch.Tensor:
        """N int64 to n×h×w."""
        mask_head = required_mask_head(self._mask_head)
        with self.options.autocast(self.logits.device):
            if self._masks_of is None:
                self._masks_of = mask_head.for_images(**self._detected.image_inputs())
            return self._masks_of(
                queries=self._detected.hidden[-1],
                image_index=torch.zeros_like(query_index),
                query_index=query_index,
            )

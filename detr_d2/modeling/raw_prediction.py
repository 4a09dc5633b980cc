"""What the network makes of one image, before queries are chosen and masks fight for pixels.

Axes: Q queries, K classes, n chosen queries; h×w the mask logits (stride 4), H'×W' the output.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from detectron2.structures import Instances
from torch.profiler import record_function

from detr_d2.modeling.inference import (
    InferenceOptions,
    QuerySelection,
    make_instances,
    select_instance_queries,
    select_panoptic_queries,
)
from detr_d2.modeling.merging import MergingRound, merge_panoptic
from detr_d2.modeling.upsampling import ImageSizes


class RawPrediction:
    """Queries of one image; thresholds and merging can be changed without another forward pass.

    Each query's mask is made when it is first wanted, and kept.

    Attributes:
        logits: Q×(K+1) float32.
        boxes_cxcywh: Q×4 float32, relative to the image, in [0, 1].
        is_thing: K bool.
        sizes: the sizes that the image goes through.
    """

    def __init__(
        self,
        logits: torch.Tensor,
        boxes_cxcywh: torch.Tensor,
        is_thing: torch.Tensor,
        sizes: ImageSizes,
        make_masks: Callable[[torch.Tensor], torch.Tensor] | None,
    ) -> None:
        """Takes, beside the attributes, what makes n×h×w mask logits of n int64 query indices.

        It is None where the model has no masks.
        """
        self.logits = logits
        self.boxes_cxcywh = boxes_cxcywh
        self.is_thing = is_thing
        self.sizes = sizes
        self._make_masks = make_masks
        self._mask_logits: torch.Tensor | None = None  # of the queries wanted so far
        self._row_of_query = torch.full((len(logits),), -1, device=logits.device)

    @property
    def has_masks(self) -> bool:
        return self._make_masks is not None

    def masks(self, query_index: torch.Tensor) -> torch.Tensor:
        """Mask logits of chosen queries.

        Args:
            query_index: n int64.

        Returns:
            n×h×w logits of the padded batch.
        """
        self._require_masks(query_index)
        return self._mask_logits[self._row_of_query[query_index]]

    def instances(self, score_thresh: float) -> Instances:
        """Things whose best class has a score above a threshold in [0, 1]."""
        return self._instances(self._select_instances(score_thresh))

    def panoptic(
        self,
        *,
        score_thresh: float,
        stuff_merging: str,
        min_area: int,
        on_round: Callable[[MergingRound], None] | None = None,
    ) -> tuple[torch.Tensor, list[dict]]:
        """The panoptic picture, with the meaning of ``MODEL.DETR.TEST``; see ``merge_panoptic``."""
        return self._merge(self.compete(score_thresh), stuff_merging, min_area, on_round)

    def compete(self, score_thresh: float) -> QuerySelection:
        """The queries that compete for pixels, see ``select_panoptic_queries``."""
        return select_panoptic_queries(self.logits, score_thresh)

    def result(self, options: InferenceOptions) -> dict:
        """What the model returns for the image; see ``DETR.forward``."""
        things = kept = None
        if options.instances_on:
            things = self._select_instances(options.instance_score_thresh)
        if options.panoptic_on and self.has_masks:
            kept = self.compete(options.score_thresh)
        if self.has_masks:
            # Of both at once: what the mask head makes of the image, it makes at each call.
            self._require_masks(*(s.query_index for s in (things, kept) if s is not None))

        result = {}
        if things is not None:
            result["instances"] = self._instances(things)
        if kept is not None:
            result["panoptic_seg"] = self._merge(kept, options.stuff_merging, options.min_area)
        if options.raw_on:
            result["raw"] = self
        return result

    def _select_instances(self, score_thresh: float) -> QuerySelection:
        return select_instance_queries(self.logits, self.is_thing, score_thresh)

    def _instances(self, selection: QuerySelection) -> Instances:
        masks = self.masks(selection.query_index) if self.has_masks else None
        boxes_cxcywh = self.boxes_cxcywh[selection.query_index]
        return make_instances(selection, boxes_cxcywh, masks, self.sizes)

    def _merge(
        self,
        kept: QuerySelection,
        stuff_merging: str,
        min_area: int,
        on_round: Callable[[MergingRound], None] | None = None,
    ) -> tuple[torch.Tensor, list[dict]]:
        masks = self.masks(kept.query_index)
        with record_function("merge"):
            return merge_panoptic(
                kept,
                masks,
                self.is_thing,
                self.sizes,
                stuff_merging=stuff_merging,
                min_area=min_area,
                on_round=on_round,
            )

    def _require_masks(self, *wanted: torch.Tensor) -> None:
        """Makes the masks of those queries, given by their indices, that have none yet.

        Raises:
            ValueError: the model has no masks.
        """
        if self._make_masks is None:
            raise ValueError("The model has no masks: MODEL.DETR.MASK_ON is False.")
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

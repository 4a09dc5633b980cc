"""Merges the masks of one image's queries to its panoptic picture.

Axes: n kept queries; h×w the mask logits (stride 4), H'×W' the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from detr_d2.modeling.inference import QuerySelection
from detr_d2.modeling.inference_options import PanopticOptions
from detr_d2.modeling.merging_rules import segment_ids, settle_round
from detr_d2.modeling.upsampling import ImageSizes, UpsampledMasks


@dataclass(frozen=True)
class MergeRound:
    """One round of the pixel-wise argmax. Queries are given by their place in the selection.

    Attributes:
        competing: those whose masks compete.
        winner: H'×W' int64, the one that has each pixel; the next round writes into it.
        areas: n numbers: the pixels of each segment at its first query, 0 at other queries.
        segment_of: n places, the first query of each query's segment.
        survivors: those of ``competing`` that are not dropped.
    """

    competing: list[int]
    winner: torch.Tensor
    areas: list[int]
    segment_of: list[int]
    survivors: list[int]


def merge_panoptic(
    selection: QuerySelection,
    mask_logits: torch.Tensor,
    is_thing: torch.Tensor,
    sizes: ImageSizes,
    options: PanopticOptions,
    on_round: Callable[[MergeRound], None] | None = None,
) -> tuple[torch.Tensor, list[dict]]:
    """Merges masks by a pixel-wise argmax: a pixel goes to the mask with the highest logit.

    Queries of one stuff class may share a segment, as ``options.rule`` says. Segments of at most
    ``options.min_area`` pixels are dropped, and their pixels go to the masks that are left, in
    rounds until none is dropped.

    Args:
        selection: n queries.
        mask_logits: n×h×w.
        is_thing: K bool.
        sizes: the sizes of the image.
        options: rule of merging and smallest area; the score threshold has made the selection.
        on_round: is told of each round.

    Returns:
        ids: H'×W' int32 on the device of the logits; 0 where nothing was kept.
        segments_info: a dict for each id from 1 on, with ``id``, ``category_id`` (contiguous),
            ``isthing``, ``score`` (of the best query), ``area`` (pixels) and ``queries`` (indices
            of all queries that share it), as Python numbers.
    """
    n, device = len(selection), mask_logits.device
    if n == 0:
        return torch.zeros(sizes.output, dtype=torch.int32, device=device), []
    things = is_thing[selection.classes]
    competes = torch.ones(n, dtype=torch.bool, device=device)
    chosen = (selection.classes, things, selection.scores, selection.query_index)
    segment_of = options.rule.segments(selection.classes, things, competes)
    all_masks = masks = UpsampledMasks(mask_logits, sizes)
    winner = torch.zeros(sizes.output, dtype=torch.int64, device=device)  # H'×W', a query's place
    rows = torch.arange(sizes.output[0], device=device)
    competing, place = list(range(n)), None  # places of queries; of all where there is no tensor
    while competing:
        for some, logits in masks.strips(rows):
            # Logits order the masks as a softmax over them would. On a CPU, max finds the place of
            # the highest ten times as fast as argmax.
            highest = logits.max(0).indices
            winner[some] = highest if place is None else place[highest]
        pixels = winner.flatten().bincount(minlength=n)
        areas, competes = settle_round(pixels, segment_of, competes, options.rule, options.min_area)
        ids = segment_ids(areas, segment_of, competes)  # n int32
        rows_of_host = (areas, competes, segment_of, ids, *chosen)
        # All of these are exact in double precision, and reach the host in one transfer.
        on_host = _OnHost(*torch.stack([row.double() for row in rows_of_host]).tolist())
        survivors = [query for query in competing if on_host.competes[query]]
        if on_round is not None:
            areas_now, segments_now = map(_integers, (on_host.areas, on_host.segment_of))
            on_round(MergeRound(competing, winner, areas_now, segments_now, survivors))
        if len(survivors) == len(competing):
            return ids[winner], on_host.segments_info(competing)
        # Only rows that have lost a pixel's winner have to be made again.
        competing, place = survivors, torch.tensor(survivors, dtype=torch.int64, device=device)
        masks = all_masks.select(place)
        rows = (~competes)[winner].any(1).nonzero()[:, 0]
    return torch.zeros(sizes.output, dtype=torch.int32, device=device), []


@dataclass(frozen=True)
class _OnHost:
    """The state of n queries after a round, as Python floats.

    The attributes are named as in ``settle_round``, ``segment_ids`` and ``QuerySelection``.
    """

    areas: list[float]
    competes: list[float]
    segment_of: list[float]
    ids: list[float]
    classes: list[float]
    things: list[float]
    scores: list[float]
    query_index: list[float]

    def segments_info(self, survivors: list[int]) -> list[dict]:
        """The ``segments_info`` of ``merge_panoptic``, given the queries that have survived."""
        members: dict[int, list[int]] = {}
        for query in survivors:
            members.setdefault(int(self.segment_of[query]), []).append(query)
        return [
            {
                "id": int(self.ids[first]),
                "category_id": int(self.classes[first]),
                "isthing": bool(self.things[first]),
                "score": max(self.scores[query] for query in members[first]),
                "area": int(self.areas[first]),
                "queries": _integers(self.query_index[query] for query in members[first]),
            }
            for first in range(len(self.areas))
            if self.areas[first] > 0
        ]


def _integers(numbers: Iterable[float]) -> list[int]:
    return [int(number) for number in numbers]

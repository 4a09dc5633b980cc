"""From the masks of one image's queries to its panoptic picture.

Axes: n kept queries; h×w the mask logits (stride 4), H'×W' the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from detr_d2.modeling.inference import QuerySelection
from detr_d2.modeling.upsampling import ImageSizes, UpsampledMasks


@dataclass(frozen=True)
class MergingRound:
    """One round of the fight for pixels. Queries are given by their place in the selection.

    Attributes:
        fighting: those that fight.
        winner: H'×W' int64, the one that has each pixel; the next round writes into it.
        areas: n numbers of pixels, of the segment of which each is the first query, else 0.
        survivors: those of ``fighting`` that are not dropped.
    """

    fighting: list[int]
    winner: torch.Tensor
    areas: list[int]
    survivors: list[int]


def merge_panoptic(
    selection: QuerySelection,
    mask_logits: torch.Tensor,
    is_thing: torch.Tensor,
    sizes: ImageSizes,
    *,
    stuff_merging: str,
    min_area: int,
    on_round: Callable[[MergingRound], None] | None = None,
) -> tuple[torch.Tensor, list[dict]]:
    """Lets the kept queries fight for pixels: a pixel goes to the mask with the highest logit.

    All queries of one stuff class share a segment. Segments of at most ``min_area`` pixels are
    dropped and their pixels are fought for again, until none is dropped. With
    ``stuff_merging="reference"`` only the first of several queries of a stuff class survives the
    first round, as in the released code, where the others' pixels have gone to the first and they
    are dropped as small; in the second round those pixels go to whichever mask comes next. With
    "merged" they stay one segment.

    Args:
        selection: n queries.
        mask_logits: n×h×w.
        is_thing: K bool.
        sizes: the sizes of the image.
        stuff_merging: "reference" or "merged".
        min_area: in pixels of the output.
        on_round: is told of each round.

    Returns:
        ids: H'×W' int32 on the device of the logits; 0 where nothing was kept.
        segments_info: a dict for each id from 1 on, with ``id``, ``category_id`` (contiguous),
            ``isthing``, ``score`` (of the best query), ``area`` (pixels) and ``queries`` (indices
            of all queries that share it), as Python numbers.
    """
    n, device = len(selection), mask_logits.device
    all_masks = masks = UpsampledMasks(mask_logits, sizes)
    winner = torch.zeros(sizes.output, dtype=torch.int64, device=device)  # H'×W', a query's place
    rows = torch.arange(sizes.output[0], device=device)
    fighting, place = list(range(n)), None  # places of queries; of all where there is no tensor
    while fighting:
        for some, logits in masks.strips(rows):
            # Logits order the masks as a softmax over them would. On a CPU, max finds the place of
            # the highest ten times as fast as argmax.
            highest = logits.max(0).indices
            winner[some] = highest if place is None else place[highest]
        # In double precision all of these are exact, and reach the host in one transfer.
        pixels, classes, things, scores, query_index = torch.stack(
            [
                winner.flatten().bincount(minlength=n).double(),
                selection.classes.double(),
                is_thing[selection.classes].double(),
                selection.scores.double(),
                selection.query_index.double(),
            ]
        ).tolist()
        segment_of = first_of_class(classes, things)
        areas = [0] * n
        for query, count in enumerate(pixels):
            areas[segment_of[query]] += int(count)
        in_segment = range(n) if stuff_merging == "reference" else segment_of
        survivors = [query for query in fighting if areas[in_segment[query]] > min_area]
        if on_round is not None:
            on_round(MergingRound(fighting, winner, areas, survivors))
        if len(survivors) == len(fighting):
            break
        # Only rows that have lost a pixel's winner are fought for again.
        fighting, place = survivors, torch.tensor(survivors, dtype=torch.int64, device=device)
        masks = all_masks.select(place)
        lost = torch.ones(n, dtype=torch.bool, device=device).index_fill_(0, place, False)
        rows = lost[winner].any(1).nonzero()[:, 0]
    if not fighting:
        return torch.zeros(sizes.output, dtype=torch.int32, device=device), []

    segments_info, id_of_segment = [], [0] * n
    for segment, area in enumerate(areas):
        if area > 0:
            id_of_segment[segment] = len(segments_info) + 1
            members = [query for query in fighting if segment_of[query] == segment]
            segments_info.append(
                {
                    "id": id_of_segment[segment],
                    "category_id": int(classes[segment]),
                    "isthing": bool(things[segment]),
                    "score": max(scores[query] for query in members),
                    "area": area,
                    "queries": [int(query_index[query]) for query in members],
                }
            )
    id_of_query = [id_of_segment[segment] for segment in segment_of]
    return torch.tensor(id_of_query, dtype=torch.int32, device=device)[winner], segments_info


def first_of_class(classes: Sequence[float], things: Sequence[float]) -> list[int]:
    """For each of n queries the first of its stuff class; for things the query itself."""
    first: dict[float, int] = {}
    return [
        query if things[query] else first.setdefault(class_id, query)
        for query, class_id in enumerate(classes)
    ]

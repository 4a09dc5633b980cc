"""The rounds of the pixel-wise argmax, in terms of queries.

Axes: n kept queries; h×w the mask logits (stride 4), H'×W' the output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from detr_d2.modeling.inference import QuerySelection
from detr_d2.modeling.merging import MergeRound
from detr_d2.modeling.upsampling import ImageSizes, UpsampledMasks


@dataclass(frozen=True)
class Candidate:
    """A query whose mask competes for pixels in one round.

    Attributes:
        query: its index.
        pixels: number of pixels that it has won itself.
        segment: index of the first query of its segment, which is another one where queries share
            a segment.
        segment_area: number of pixels of that segment.
        outcome: "stays"; "small" if it is dropped because its segment has too few pixels; "by rule"
            if the merging rule drops it although its segment has enough.
    """

    query: int
    pixels: int
    segment: int
    segment_area: int
    outcome: str


@dataclass(frozen=True)
class ExplainedRound:
    """One round of the pixel-wise argmax.

    Attributes:
        winner: H'×W' int64, index of the query that has each pixel.
        candidates: the queries whose masks compete.
    """

    winner: torch.Tensor
    candidates: list[Candidate]

    @classmethod
    def of(cls, merge_round: MergeRound, kept: QuerySelection, min_area: int) -> ExplainedRound:
        """Copies a round of ``merge_panoptic``, because the next round writes into it.

        Args:
            merge_round: gives queries by their places in ``kept``.
            kept: the n queries that compete in the first round.
            min_area: segments of at most so many pixels are dropped.
        """
        queries = kept.query_index.tolist()
        pixels = merge_round.winner.flatten().bincount(minlength=len(kept)).tolist()
        survivors = set(merge_round.survivors)

        def candidate(place: int) -> Candidate:
            first = merge_round.segment_of[place]
            segment_area = merge_round.areas[first]
            outcome = "small" if segment_area <= min_area else "by rule"
            return Candidate(
                query=queries[place],
                pixels=pixels[place],
                segment=queries[first],
                segment_area=segment_area,
                outcome="stays" if place in survivors else outcome,
            )

        winner = kept.query_index[merge_round.winner]
        return cls(winner, [candidate(place) for place in merge_round.competing])


def margins(mask_logits: torch.Tensor, sizes: ImageSizes) -> torch.Tensor:
    """Computes by how much the highest logit of each pixel is above the second.

    Args:
        mask_logits: n×h×w, of the queries that compete.
        sizes: the sizes of the image.

    Returns:
        H'×W' float32; infinite where fewer than two queries compete.
    """
    margin = mask_logits.new_full(sizes.output, float("inf"), dtype=torch.float32)
    if len(mask_logits) > 1:
        rows = torch.arange(sizes.output[0], device=mask_logits.device)
        for some, logits in UpsampledMasks(mask_logits, sizes).strips(rows):
            first, second = logits.topk(2, dim=0).values
            margin[some] = first - second
    return margin

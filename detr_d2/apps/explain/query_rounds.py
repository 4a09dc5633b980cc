"""The fight for pixels, round by round, in terms of queries.

Axes: n kept queries; h×w the mask logits (stride 4), H'×W' the output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from detr_d2.modeling.inference import InferenceOptions, QuerySelection
from detr_d2.modeling.merging import MergingRound, first_of_class
from detr_d2.modeling.upsampling import ImageSizes, UpsampledMasks


@dataclass(frozen=True)
class Fighter:
    """A query in one round.

    Attributes:
        query: its index.
        pixels: those that it has won itself.
        segment: index of the first query of its segment: another's, where stuff is shared.
        segment_area: pixels of that segment.
        outcome: "stays"; "small", its segment has too few pixels; "not first", the reference's
            merging keeps the first query of a stuff class alone.
    """

    query: int
    pixels: int
    segment: int
    segment_area: int
    outcome: str


@dataclass(frozen=True)
class FightRound:
    """One round.

    Attributes:
        winner: H'×W' int64, index of the query that has each pixel.
        fighters: the queries that fight.
    """

    winner: torch.Tensor
    fighters: list[Fighter]

    @classmethod
    def of(
        cls,
        merging_round: MergingRound,
        kept: QuerySelection,
        is_thing: torch.Tensor,
        options: InferenceOptions,
    ) -> FightRound:
        """Copies a round of ``merge_panoptic``, which goes on to write into it.

        Args:
            merging_round: with places in ``kept``.
            kept: the n queries that began to fight.
            is_thing: K bool.
            options: how they are merged.
        """
        queries = kept.query_index.tolist()
        pixels = merging_round.winner.flatten().bincount(minlength=len(kept)).tolist()
        segment_of = first_of_class(kept.classes.tolist(), is_thing[kept.classes].tolist())
        survivors = set(merging_round.survivors)

        def outcome(place: int) -> str:
            if place in survivors:
                return "stays"
            shares = segment_of[place] != place
            return "not first" if shares and options.stuff_merging == "reference" else "small"

        fighters = [
            Fighter(
                query=queries[place],
                pixels=pixels[place],
                segment=queries[segment_of[place]],
                segment_area=merging_round.areas[segment_of[place]],
                outcome=outcome(place),
            )
            for place in merging_round.fighting
        ]
        return cls(kept.query_index[merging_round.winner], fighters)


def margins(mask_logits: torch.Tensor, sizes: ImageSizes) -> torch.Tensor:
    """By how much each pixel's highest logit is above the second.

    Args:
        mask_logits: n×h×w, of the queries that fight.
        sizes: the sizes of the image.

    Returns:
        H'×W' float32; infinite where fewer than two fight.
    """
    margin = mask_logits.new_full(sizes.output, float("inf"), dtype=torch.float32)
    if len(mask_logits) > 1:
        rows = torch.arange(sizes.output[0], device=mask_logits.device)
        for some, logits in UpsampledMasks(mask_logits, sizes).strips(rows):
            first, second = logits.topk(2, dim=0).values
            margin[some] = first - second
    return margin

"""The rules of merging: who competes for pixels, who shares a segment, and who survives a round.

They are functions on tensors without branches, so that eager merging (``merge_panoptic``) and
exported graphs (``detr_d2.export.merging_loop``) call the same ones.

Axes: Q queries, K classes, n queries that may compete.
"""

from __future__ import annotations

from typing import Protocol

import torch


def competing_queries(
    logits: torch.Tensor, score_thresh: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Says which queries compete: their best class is an object, with a score above the threshold.

    Args:
        logits: Q×(K+1).
        score_thresh: in [0, 1].

    Returns:
        scores: Q float32, the probability of the best class, "no object" aside.
        classes: Q int64, that class.
        competes: Q bool.
    """
    probabilities = logits.float().softmax(-1)
    scores, classes = probabilities[:, :-1].max(-1)
    return scores, classes, (scores >= probabilities[:, -1]) & (scores > score_thresh)


class MergingRule(Protocol):
    """A rule of merging, named by ``MODEL.DETR.TEST.STUFF_MERGING``."""

    def segments(
        self, classes: torch.Tensor, things: torch.Tensor, competing: torch.Tensor
    ) -> torch.Tensor:
        """Joins queries to segments.

        Args:
            classes: n int64.
            things: n bool, whether that class is one of things.
            competing: n bool; the others join nobody, and nobody joins them.

        Returns:
            n int64: for each query the place of the first query of its segment.
        """

    def survives(
        self, areas: torch.Tensor, segment_of: torch.Tensor, min_area: int
    ) -> torch.Tensor:
        """Says which queries go on to the next round.

        Args:
            areas: n int64, the pixels of each segment at its first query, 0 at other queries.
            segment_of: n int64, what ``segments`` gave.
            min_area: in pixels of the output.

        Returns:
            n bool.
        """


class Merged:
    """All queries of one stuff class are one segment, which stays if it is large enough."""

    def segments(
        self, classes: torch.Tensor, things: torch.Tensor, competing: torch.Tensor
    ) -> torch.Tensor:
        place = torch.arange(classes.shape[0], device=classes.device)
        stuff = competing & ~things
        same = (classes[:, None] == classes) & stuff[:, None] & stuff  # n×n
        # The first of those that are the same: argmax of a row takes the first of equal values.
        return torch.where(stuff, same.int().argmax(1), place)

    def survives(
        self, areas: torch.Tensor, segment_of: torch.Tensor, min_area: int
    ) -> torch.Tensor:
        return areas[segment_of] > min_area


class Reference(Merged):
    """The rule of the released code, which keeps only the first query of a stuff class.

    In the first round, the pixels of the other queries count for the first one, so the others have
    none and are dropped. In the second round, their pixels go to the best of the remaining masks.
    """

    def survives(
        self, areas: torch.Tensor, segment_of: torch.Tensor, min_area: int
    ) -> torch.Tensor:
        return areas > min_area


# Values of ``MODEL.DETR.TEST.STUFF_MERGING``. A further rule is an entry of its own.
MERGING_RULES: dict[str, MergingRule] = {"reference": Reference(), "merged": Merged()}


def settle_round(
    pixels: torch.Tensor,
    segment_of: torch.Tensor,
    competing: torch.Tensor,
    rule: MergingRule,
    min_area: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ends a round in which every pixel went to the competing mask with the highest logit.

    Args:
        pixels: n int64, the pixels of the output that each query has.
        segment_of: n int64, the first query of each query's segment.
        competing: n bool.
        rule: decides who survives.
        min_area: in pixels of the output.

    Returns:
        areas: n int64, the pixels of each segment, at its first query.
        survivors: n bool, those of the competing queries that are not dropped.
    """
    areas = torch.zeros_like(pixels).scatter_add(0, segment_of, pixels)
    return areas, competing & rule.survives(areas, segment_of, min_area)


def segment_ids(
    areas: torch.Tensor, segment_of: torch.Tensor, survivors: torch.Tensor
) -> torch.Tensor:
    """Numbers the segments after the last round.

    Args:
        areas: n int64, see ``settle_round``.
        segment_of: n int64.
        survivors: n bool.

    Returns:
        n int32: the id of each query's segment, from 1 on; 0 where it has none.
    """
    has_pixels = (areas > 0) & survivors.any()
    return (has_pixels.int().cumsum(0, dtype=torch.int32) * has_pixels)[segment_of]

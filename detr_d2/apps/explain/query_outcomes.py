"""What became of each query, in words and numbers.

Axes: Q queries, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torchvision.ops import box_convert

from detr_d2.apps.explain.explanation import Explanation

# Number of classes that are listed for each query.
TOP_CLASSES = 3


@dataclass(frozen=True)
class QueryOutcome:
    """One query: what it predicts, whether it is kept, and what it has in the panoptic picture.

    Attributes:
        index: of the query.
        class_id: its best class, "no object" aside.
        name: of that class.
        is_thing: whether that class is one of things.
        score: the class's probability.
        no_object: the probability of "no object".
        top: names and probabilities of its best classes, "no object" among them.
        box_xyxy: corners relative to the image, in [0, 1].
        kept: whether it competes for pixels.
        why: the reason, one or two sentences.
        segment: id of its segment in the panoptic picture; 0 if it has none.
        pixels: number of pixels that it has itself in the panoptic picture.
    """

    index: int
    class_id: int
    name: str
    is_thing: bool
    score: float
    no_object: float
    top: list[tuple[str, float]]
    box_xyxy: list[float]
    kept: bool
    why: str
    segment: int
    pixels: int

    @property
    def kind(self) -> str:
        return "thing" if self.is_thing else "stuff"


def query_outcomes(explanation: Explanation) -> list[QueryOutcome]:
    """Tells what became of all Q queries, in the order of their indices."""
    raw, masks = explanation.raw, explanation.masks
    probabilities = raw.logits.softmax(-1)
    no_object = probabilities[:, -1].tolist()
    scores, classes = (values.tolist() for values in probabilities[:, :-1].max(-1))
    top = probabilities.topk(min(TOP_CLASSES, probabilities.shape[1]))
    names = [*explanation.class_names, "no object"]
    boxes = box_convert(raw.boxes_cxcywh, "cxcywh", "xyxy").clamp(0, 1).tolist()
    kept = set() if masks is None else set(masks.kept.tolist())
    segment_of, pixels_of = _segments(explanation)

    def why(query: int) -> str:
        if masks is None:
            return "The model has no masks, so no query is chosen."
        thresh = f"{100 * explanation.options.score_thresh:.3g}%"
        if query in kept:
            if segment_of.get(query):
                return f"Kept: its score is above {thresh}."
            return f"Kept: its score is above {thresh}. It lost all its pixels in move 7."
        if no_object[query] > scores[query]:
            return f"Dropped: “no object” is likelier, with {no_object[query]:.0%}."
        return f"Dropped: its score is not above {thresh}."

    return [
        QueryOutcome(
            index=query,
            class_id=classes[query],
            name=names[classes[query]],
            is_thing=bool(raw.is_thing[classes[query]]),
            score=scores[query],
            no_object=no_object[query],
            top=[
                (names[k], p)
                for k, p in zip(
                    top.indices[query].tolist(), top.values[query].tolist(), strict=True
                )
            ],
            box_xyxy=boxes[query],
            kept=query in kept,
            why=why(query),
            segment=segment_of.get(query, 0),
            pixels=pixels_of.get(query, 0),
        )
        for query in range(len(raw.logits))
    ]


def best_query(outcomes: list[QueryOutcome]) -> int:
    """Index of the query that the page shows first.

    It is the surest thing of those that have a segment, or else the surest query.
    """
    return max(outcomes, key=lambda q: (q.segment > 0, q.kept, q.is_thing, q.score)).index


def surest_kept(outcomes: list[QueryOutcome], count: int) -> list[int]:
    """Indices of the kept queries of the highest scores, at most ``count``, the surest first."""
    kept = sorted((query for query in outcomes if query.kept), key=lambda query: -query.score)
    return [query.index for query in kept[:count]]


def _segments(explanation: Explanation) -> tuple[dict[int, int], dict[int, int]]:
    """For each query in the panoptic picture its segment's id, and its own number of pixels."""
    masks = explanation.masks
    if masks is None or not masks.segments_info:
        return {}, {}
    segment_of = {q: s["id"] for s in masks.segments_info for q in s["queries"]}
    winner = masks.rounds[-1].winner
    count = torch.bincount(winner.flatten(), minlength=len(explanation.raw.logits)).tolist()
    return segment_of, {query: count[query] for query in segment_of}

"""What became of each query, in words and numbers.

Axes: Q queries, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torchvision.ops import box_convert

from detr_d2.apps.explain.explanation import Explanation

# Classes that are listed of each query.
TOP_CLASSES = 3


@dataclass(frozen=True)
class QueryFate:
    """One query.

    Attributes:
        index: of the query.
        class_id: its best class, "no object" aside.
        name: of that class.
        is_thing: whether that class is one of things.
        score: the class's probability.
        no_object: the probability of "no object".
        top: names and probabilities of its best classes, "no object" among them.
        box_xyxy: corners relative to the image, in [0, 1].
        kept: whether it fights for pixels.
        why: one sentence.
        segment: id of its segment in the panoptic picture; 0: it has none.
        pixels: that it has itself in the panoptic picture.
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


def query_fates(explanation: Explanation) -> list[QueryFate]:
    """Of all Q queries, by their indices."""
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
        QueryFate(
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


def best_query(fates: list[QueryFate]) -> int:
    """The query to begin with: of those with pixels the surest thing, or else the surest."""
    return max(fates, key=lambda f: (f.segment > 0, f.kept, f.is_thing, f.score)).index


def surest_kept(fates: list[QueryFate], count: int) -> list[int]:
    """Indices of the kept queries of the highest scores, at most ``count``, the surest first."""
    kept = sorted((fate for fate in fates if fate.kept), key=lambda fate: -fate.score)
    return [fate.index for fate in kept[:count]]


def _segments(explanation: Explanation) -> tuple[dict[int, int], dict[int, int]]:
    """For the queries that are in the panoptic picture its id and their own pixels."""
    masks = explanation.masks
    if masks is None or not masks.segments_info:
        return {}, {}
    segment_of = {q: s["id"] for s in masks.segments_info for q in s["queries"]}
    winner = masks.rounds[-1].winner
    count = torch.bincount(winner.flatten(), minlength=len(explanation.raw.logits)).tolist()
    return segment_of, {query: count[query] for query in segment_of}

"""Rounds are told in terms of queries, and say why a mask was dropped."""

import pytest
import torch

from detr_d2.apps.explain.query_rounds import ExplainedRound, margins
from detr_d2.modeling.inference import QuerySelection
from detr_d2.modeling.inference_options import PanopticOptions
from detr_d2.modeling.merging import merge_panoptic
from detr_d2.modeling.merging_rules import MERGING_RULES, Merged
from detr_d2.modeling.upsampling import ImageSizes

SIZES = ImageSizes(padded=(4, 4), network=(4, 4), output=(4, 4))
IS_THING = torch.tensor([True, False])


@pytest.fixture
def masks():
    """Of queries 2 (a thing), 3 and 5 (stuff of one class) and 6 (a thing of one pixel)."""
    logits = torch.full((4, 4, 4), -5.0)
    logits[0, 0] = 3.0
    logits[1, 1] = 2.0
    logits[2, 2:] = 1.0
    logits[3, 3, 3] = 4.0
    return logits


def merge(masks, stuff_merging, min_area=2):
    kept = QuerySelection(
        torch.tensor([2, 3, 5, 6]), torch.tensor([0, 1, 1, 0]), torch.tensor([0.9, 0.8, 0.7, 0.6])
    )
    options = PanopticOptions(score_thresh=0.5, stuff_merging=stuff_merging, min_area=min_area)
    rounds = []
    ids, segments_info = merge_panoptic(
        kept,
        masks,
        IS_THING,
        SIZES,
        options,
        on_round=lambda told: rounds.append(ExplainedRound.of(told, kept, min_area)),
    )
    return rounds, ids, segments_info


def outcomes(explained_round):
    return {c.query: (c.pixels, c.segment, c.outcome) for c in explained_round.candidates}


def test_small_masks_are_dropped_and_stuff_shares_a_segment(masks):
    (first, second), ids, segments_info = merge(masks, "merged")
    assert outcomes(first) == {
        2: (4, 2, "stays"),
        3: (4, 3, "stays"),
        5: (7, 3, "stays"),
        6: (1, 6, "small"),
    }
    assert first.winner[3, 3] == 6
    assert outcomes(second)[5] == (8, 3, "stays")
    assert second.winner[3, 3] == 5
    assert {c.segment_area for c in second.candidates if c.segment == 3} == {12}
    # The last winners, by segment, are the panoptic picture.
    segment_of = {query: s["id"] for s in segments_info for query in s["queries"]}
    assert ids.tolist() == [[segment_of[q] for q in row] for row in second.winner.tolist()]


def test_reference_keeps_the_first_of_a_stuff_class(masks):
    rounds, _, segments_info = merge(masks, "reference")
    assert outcomes(rounds[0])[5] == (7, 3, "by rule")
    assert [c.query for c in rounds[1].candidates] == [2, 3]
    assert [s["queries"] for s in segments_info] == [[2], [3]]


class OneQueryPerImage(Merged):
    """A third rule: it keeps the first query alone, whatever the areas are."""

    def survives(self, areas, segment_of, min_area):
        return torch.arange(len(areas)) == 0


def test_a_further_rule_has_outcomes_too(masks, monkeypatch):
    monkeypatch.setitem(MERGING_RULES, "one", OneQueryPerImage())
    rounds, _, segments_info = merge(masks, "one")
    assert outcomes(rounds[0]) == {
        2: (4, 2, "stays"),
        3: (4, 3, "by rule"),
        5: (7, 3, "by rule"),
        6: (1, 6, "small"),
    }
    assert outcomes(rounds[1]) == {2: (16, 2, "stays")}
    assert [s["queries"] for s in segments_info] == [[2]]


def test_margins_are_between_the_two_highest(masks):
    found = margins(masks, SIZES)
    top = masks.sort(0).values
    torch.testing.assert_close(found, top[-1] - top[-2])
    assert margins(masks[:1], SIZES).isposinf().all()
    assert margins(masks[:0], SIZES).isposinf().all()

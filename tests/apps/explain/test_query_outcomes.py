"""What is said of each query is what the logits say."""

from dataclasses import replace

import torch

from detr_d2.apps.explain.query_outcomes import best_query, query_outcomes, surest_kept


def test_scores_boxes_and_reasons_are_the_models(explanation):
    outcomes = query_outcomes(explanation)
    probabilities = explanation.raw.logits.softmax(-1)
    kept = explanation.masks.kept.tolist()
    assert [outcome.index for outcome in outcomes if outcome.kept] == kept
    for outcome, row in zip(outcomes, probabilities, strict=True):
        assert outcome.score == row[:-1].max().item()
        assert outcome.no_object == row[-1].item()
        assert outcome.name == explanation.class_names[row[:-1].argmax()]
        assert outcome.top[0] == (outcome.name, outcome.score)
        assert outcome.why.startswith("Kept" if outcome.kept else "Dropped: its score is not above")
    cx, cy, w, h = explanation.raw.boxes_cxcywh[0].tolist()
    expected = torch.tensor([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]).clamp(0, 1)
    torch.testing.assert_close(torch.tensor(outcomes[0].box_xyxy), expected)


def test_pixels_and_segments_are_those_of_the_picture(explanation):
    outcomes = query_outcomes(explanation)
    ids = explanation.masks.ids
    for segment in explanation.masks.segments_info:
        members = [outcome for outcome in outcomes if outcome.segment == segment["id"]]
        assert [outcome.index for outcome in members] == segment["queries"]
        assert sum(outcome.pixels for outcome in members) == (ids == segment["id"]).sum()
    assert outcomes[best_query(outcomes)].segment > 0


def test_queries_share_a_segment_and_have_pixels_of_their_own(explanation):
    first, second, *rest = (
        outcome.index for outcome in query_outcomes(explanation) if outcome.segment
    )
    shared = [{"id": 7, "queries": [first, second]}]
    masks = replace(explanation.masks, segments_info=shared)
    outcomes = query_outcomes(replace(explanation, masks=masks))
    winner = masks.rounds[-1].winner
    assert [outcome.index for outcome in outcomes if outcome.segment == 7] == [first, second]
    assert [outcomes[q].pixels for q in (first, second)] == [
        int((winner == q).sum()) for q in (first, second)
    ]
    assert all("lost all its pixels" in outcomes[query].why for query in rest)


def test_the_surest_of_the_kept_queries(explanation):
    outcomes = query_outcomes(explanation)
    surest = surest_kept(outcomes, 3)
    rest = set(explanation.masks.kept.tolist()) - set(surest)
    scores = [outcomes[query].score for query in surest]
    assert len(surest) == 3 and len(rest) == 2 and scores == sorted(scores, reverse=True)
    assert min(scores) >= max(outcomes[query].score for query in rest)
    assert set(surest_kept(outcomes, 99)) == rest | set(surest)


def test_no_object_is_the_reason_where_it_is_likelier(make_model, image):
    from detr_d2.apps.explain import explain

    model = make_model()
    model.detector.class_head.bias.data[-1] = 100.0
    outcomes = query_outcomes(explain(model, image))
    assert {outcome.why for outcome in outcomes} == {"Dropped: “no object” is likelier, with 100%."}
    assert not any(outcome.kept or outcome.segment or outcome.pixels for outcome in outcomes)

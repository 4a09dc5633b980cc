"""What is said of each query is what the logits say."""

from dataclasses import replace

import torch

from detr_d2.apps.explain.query_outcomes import best_query, query_fates, surest_kept


def test_scores_boxes_and_reasons_are_the_models(explanation):
    fates = query_fates(explanation)
    probabilities = explanation.raw.logits.softmax(-1)
    kept = explanation.masks.kept.tolist()
    assert [fate.index for fate in fates if fate.kept] == kept
    for fate, row in zip(fates, probabilities, strict=True):
        assert fate.score == row[:-1].max().item()
        assert fate.no_object == row[-1].item()
        assert fate.name == explanation.class_names[row[:-1].argmax()]
        assert fate.top[0] == (fate.name, fate.score)
        assert fate.why.startswith("Kept" if fate.kept else "Dropped: its score is not above")
    cx, cy, w, h = explanation.raw.boxes_cxcywh[0].tolist()
    expected = torch.tensor([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]).clamp(0, 1)
    torch.testing.assert_close(torch.tensor(fates[0].box_xyxy), expected)


def test_pixels_and_segments_are_those_of_the_picture(explanation):
    fates = query_fates(explanation)
    ids = explanation.masks.ids
    for segment in explanation.masks.segments_info:
        members = [fate for fate in fates if fate.segment == segment["id"]]
        assert [fate.index for fate in members] == segment["queries"]
        assert sum(fate.pixels for fate in members) == (ids == segment["id"]).sum()
    assert fates[best_query(fates)].segment > 0


def test_queries_share_a_segment_and_have_pixels_of_their_own(explanation):
    first, second, *rest = (fate.index for fate in query_fates(explanation) if fate.segment)
    shared = [{"id": 7, "queries": [first, second]}]
    masks = replace(explanation.masks, segments_info=shared)
    fates = query_fates(replace(explanation, masks=masks))
    winner = masks.rounds[-1].winner
    assert [fate.index for fate in fates if fate.segment == 7] == [first, second]
    assert [fates[q].pixels for q in (first, second)] == [
        int((winner == q).sum()) for q in (first, second)
    ]
    assert all("lost all its pixels" in fates[query].why for query in rest)


def test_the_surest_of_the_kept_queries(explanation):
    fates = query_fates(explanation)
    surest = surest_kept(fates, 3)
    rest = set(explanation.masks.kept.tolist()) - set(surest)
    scores = [fates[query].score for query in surest]
    assert len(surest) == 3 and len(rest) == 2 and scores == sorted(scores, reverse=True)
    assert min(scores) >= max(fates[query].score for query in rest)
    assert set(surest_kept(fates, 99)) == rest | set(surest)


def test_no_object_is_the_reason_where_it_is_likelier(make_model, image):
    from detr_d2.apps.explain import explain

    model = make_model()
    model.detector.class_head.bias.data[-1] = 100.0
    fates = query_fates(explain(model, image))
    assert {fate.why for fate in fates} == {"Dropped: “no object” is likelier, with 100%."}
    assert not any(fate.kept or fate.segment or fate.pixels for fate in fates)

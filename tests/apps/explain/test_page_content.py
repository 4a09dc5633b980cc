"""The page's figures are the model's, and it needs nothing but itself."""

import json
import re
from dataclasses import replace

import pytest
import torch

from detr_d2.apps.explain import explain
from detr_d2.apps.explain.page_content import page_context, softmax_of
from detr_d2.apps.explain.tensor_origins import origins
from detr_d2.apps.html import render_page
from detr_d2.modeling.merging_rules import MERGING_RULES, Merged


def page_of(explanation):
    return render_page("explain.html.j2", **page_context(explanation))


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


@pytest.fixture(scope="module")
def page(explanation):
    return page_of(explanation)


def test_embedded_numbers_are_the_models(page, model, image, explanation):
    data = data_of(page)
    (raw,) = model.raw_predictions([image])
    scores, classes = raw.logits.softmax(-1)[:, :-1].max(-1)
    assert [query["score"] for query in data["queries"]] == scores.tolist()
    assert [query["class_id"] for query in data["queries"]] == classes.tolist()
    assert [q["index"] for q in data["queries"] if q["kept"]] == explanation.masks.kept.tolist()
    assert sorted(map(int, data["stages"])) == explanation.masks.kept.tolist()
    peaks = explanation.masks.attention_maps.flatten(2).amax(2).T
    shown = torch.tensor([view["peaks"] for view in data["maps"]["views"]])
    torch.testing.assert_close(shown, peaks, rtol=1e-3, atol=0)
    for view in data["decoder"]["views"]:
        weights = explanation.decoder_attention[view["layer"]].weights()
        of_head = weights.mean(0) if view["head"] < 0 else weights[view["head"]]
        torch.testing.assert_close(torch.tensor(view["peaks"]), of_head.amax(1), rtol=1e-3, atol=0)


def test_segments_are_listed_with_the_models_areas(page, model, image, panoptic_alone):
    _, segments_info = panoptic_alone(model, image)
    table = re.findall(r"<th>Share</th>.*?</table>", page, re.DOTALL)[0]
    areas = [int(text.replace(",", "")) for text in re.findall(r"<td>([\d,]+)</td>\n<td>\d", table)]
    areas_of_model = sorted((s["area"] for s in segments_info), reverse=True)
    assert [a for a in areas if a in areas_of_model] == areas_of_model


def test_every_move_names_tensors_shapes_and_code(page, explanation):
    moves = origins(explanation)
    assert list(moves) == [1, 2, 3, 4, 5, 6, 7]
    assert len(re.findall(r'<h2 id="move\d"', page)) == 7
    text = re.sub(r"<wbr>", "", page)
    for origin in (origin for move in moves.values() for origin in move):
        assert "×".join(map(str, origin.shape)) in text
        assert origin.code in text
        if origin.module:
            explanation.model.get_submodule(origin.module)
    assert re.search(r"detr_d2/modeling/attention_mask_head\.py:\d+: AttentionMap\.forward", text)
    assert re.search(r"detr_d2/modeling/merging\.py:\d+: merge_panoptic", text)


def test_shapes_are_those_of_the_tensors(explanation):
    moves = origins(explanation)
    assert {o.name: o.shape for o in moves[1]}["positions"] == tuple(explanation.positions.shape)
    attention = next(o for o in moves[2] if o.name == "softmax(q·k)")
    assert attention.shape == tuple(explanation.encoder_attention[0].weights().shape)
    attention = next(o for o in moves[3] if o.name == "softmax(q·k)")
    assert attention.shape == tuple(explanation.decoder_attention[0].weights().shape)


def test_page_asks_for_nothing(page):
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)[^"']*""", page)
    assert not re.findall(r"url\((?!data:|\$\{)[^)]{0,40}", page)
    assert "http" not in page.replace("http-equiv", "")
    assert len(page) < 8e6


def test_names_are_escaped(make_model, image):
    explanation = explain(make_model(), image)
    explanation.class_names[:] = ["</script><b>evil"] * len(explanation.class_names)
    page = page_of(explanation)
    assert "<b>evil" not in page
    assert data_of(page)["queries"][0]["name"] == "</script><b>evil"


def test_the_softmax_is_told_from_the_maps(make_model, image, page):
    explanation = explain(make_model("MODEL.DETR.MASK_HEAD.ATTENTION_SOFTMAX", "joint"), image)
    joint = page_of(explanation)
    assert "all heads and points <b>together</b>" in joint
    assert "all heads and points <b>together</b>" not in page
    assert "<b>each head</b>" in page
    shares = torch.tensor(data_of(joint)["maps"]["shares"])
    torch.testing.assert_close(shares.sum(1), torch.ones(8), rtol=0, atol=1e-3)
    assert data_of(page)["maps"]["shares"] is None
    assert softmax_of(explanation.masks.attention_maps * 0.5) == ""


@pytest.mark.parametrize("overrides", [["MODEL.DETR.MASK_ON", False], ["MODEL.DETR.ENC_LAYERS", 0]])
def test_models_without_masks_or_encoder(make_model, image, overrides):
    explanation = explain(make_model(*overrides), image)
    page = page_of(explanation)
    masks_on = explanation.masks is not None
    assert ("stages" in data_of(page)) == masks_on
    assert ("MODEL.DETR.MASK_ON" in page) == (not masks_on)
    assert ("MODEL.DETR.ENC_LAYERS" in page) == (not explanation.encoder_attention)


def test_a_further_merging_rule(make_model, image, monkeypatch):
    class FirstAlone(Merged):
        def survives(self, areas, segment_of, min_area):
            return torch.arange(len(areas)) == 0

    monkeypatch.setitem(MERGING_RULES, "first_alone", FirstAlone())
    model = make_model()
    panoptic = replace(model.options.panoptic, stuff_merging="first_alone")
    model.options = replace(model.options, panoptic=panoptic)
    page = page_of(explain(model, image))
    assert "The rule <code>STUFF_MERGING “first_alone”</code> says which queries" in page
    assert page.count("dropped</b> by the rule “first_alone”: its segment has") == 4


def test_half_precision(make_model, image, panoptic_alone):
    model = make_model("MODEL.DETR.TEST.PRECISION", "bfloat16")
    ids, segments_info = panoptic_alone(model, image)
    explanation = explain(model, image)
    assert explanation.memory.dtype == torch.bfloat16
    assert torch.equal(explanation.masks.ids, ids)
    assert explanation.masks.segments_info == segments_info
    assert "Filtering: 5 of 8 queries are kept" in page_of(explanation)


@pytest.mark.parametrize("kept", [0, 1])
def test_few_queries_kept(make_model, image, kept):
    page = page_of(explain(make_model(kept=kept), image))
    assert f"Filtering: {kept} of 8 queries are kept" in page
    assert ("no mask competes" in page) == (kept == 0)
    assert "How clear it was" not in page

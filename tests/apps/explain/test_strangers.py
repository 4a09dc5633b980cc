"""Transformers and mask heads that explain nothing of themselves, or less than DETR's own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from detr_d2.apps.explain import explain, write_explanation
from detr_d2.apps.explain.hook_recording import output_of, recording
from detr_d2.apps.explain.left_out import left_out
from detr_d2.modeling import (
    DETR_MASK_HEAD_REGISTRY,
    DETR_TRANSFORMER_REGISTRY,
    DetectorTransformer,
    MaskHead,
)
from detr_d2.modeling.mask_head_base import ExplainedModules
from detr_d2.modeling.transformer_base import Transformed


class AveragingTransformer(DetectorTransformer):
    """Adds the image's mean to each query, and names nothing to explain."""

    def __init__(self, cfg) -> None:
        super().__init__()

    def forward(self, features, padding_mask, positions, query_embed, targets=None):
        mean = features.mean((2, 3))[:, None]  # B×1×D
        return Transformed((mean + query_embed)[None], features)


class ConditionalAttention(nn.Module):
    """Attention whose queries and keys hold content and position side by side."""

    def __init__(self, hidden_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(hidden_dim, 2 * hidden_dim)
        self.k_proj = nn.Linear(hidden_dim, 2 * hidden_dim)
        self.v_proj = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, query, memory):
        q, k, v = self.q_proj(query), self.k_proj(memory), self.v_proj(memory)
        q, k, v = (x.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class WideTransformer(DetectorTransformer):
    """Has no encoder, and names the attention of two decoder layers of different heads."""

    def __init__(self, cfg) -> None:
        super().__init__()
        width = cfg.MODEL.DETR.HIDDEN_DIM
        self.attention = nn.ModuleList(ConditionalAttention(width, heads) for heads in (2, 4))

    def explained_attention(self):
        return {"decoder": ["attention.0", "attention.1"]}

    def forward(self, features, padding_mask, positions, query_embed, targets=None):
        memory = features.flatten(2).transpose(1, 2)  # B×S×D
        hidden = [query_embed.expand(len(features), -1, -1)]
        for layer in self.attention:
            hidden.append(hidden[-1] + layer(hidden[-1], memory))
        return Transformed(torch.stack(hidden[1:]), features)


class ProductHead(MaskHead):
    """The product of each query with the features of each point, and nothing to explain."""

    def __init__(self, cfg, lateral_channels) -> None:
        super().__init__()
        width = cfg.MODEL.DETR.HIDDEN_DIM
        self.lateral = nn.Conv2d(lateral_channels[-1], width, kernel_size=1)
        self.norm = nn.GroupNorm(1, width)

    def forward(
        self, *, queries, memory, projected, laterals, padding_mask, image_index, query_index
    ):
        features = self.lateral(laterals[-1])[image_index]  # N×D×H/4×W/4
        if len(features):
            features = self.norm(features).relu()
        return torch.einsum("nd,ndhw->nhw", queries[image_index, query_index], features)


class StagedHead(ProductHead):
    """Names a stage, which does not run without queries, and no attention maps."""

    def explained_modules(self):
        return ExplainedModules(stages=("norm",))


STRANGERS = {
    DETR_TRANSFORMER_REGISTRY: (AveragingTransformer, WideTransformer),
    DETR_MASK_HEAD_REGISTRY: (ProductHead, StagedHead),
}
NO_ENCODER = (
    "This transformer names no attention modules of its encoder, "
    "so the encoder’s attention is not shown."
)
NO_DECODER = (
    "This transformer names no attention modules of its decoder, "
    "so the decoder’s attention is not shown."
)
NO_MAPS = (
    "This mask head names no module that gives attention maps, so attention maps are not shown."
)
NO_STAGES = "This mask head names no stages, so only its mask logits are shown."


# Elements with canvases, by the names of what they show.
CANVASES = {"encoder": "#encoder", "decoder": "#decoder", "attention_maps": "#maps"}
SHOWN = f"""
const canvases = {CANVASES};
return {{
  query: document.getElementById("query").value,
  mask: document.getElementById("mask").checkVisibility(),
  limited: document.querySelector("[id$=-limits]:not([hidden])") !== null,
  stages: document.querySelectorAll("#stages .strip").length,
  canvases: Object.keys(canvases).filter((name) =>
    document.querySelector(`${{canvases[name]}} canvas`)),
}};
"""


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    for registry, classes in STRANGERS.items():
        for stranger in classes:
            registry.register(stranger)
    yield
    for registry, classes in STRANGERS.items():
        for stranger in classes:
            del registry._obj_map[stranger.__name__]


@pytest.fixture(scope="module")
def stranger(make_model, registered):
    """Makes a model of a transformer and a mask head, by their names."""

    def make(transformer="Transformer", head="AttentionMaskHead", kept=5):
        names = ["MODEL.DETR.TRANSFORMER_NAME", transformer, "MODEL.DETR.MASK_HEAD.NAME", head]
        return make_model(*names, kept=kept)

    return make


CASES = {
    "nothing explained": (
        ("AveragingTransformer", "ProductHead"),
        {"encoder": NO_ENCODER, "decoder": NO_DECODER, "attention_maps": NO_MAPS}
        | {"stages": NO_STAGES},
    ),
    "decoder alone": (("WideTransformer", "AttentionMaskHead"), {"encoder": NO_ENCODER}),
    "stages alone": (("Transformer", "StagedHead"), {"attention_maps": NO_MAPS}),
}


@pytest.mark.parametrize(("names", "sentences"), CASES.values(), ids=CASES)
def test_page_says_what_is_left_out(stranger, image, browser, tmp_path, names, sentences):
    model = stranger(*names)
    explanation = explain(model, image)
    (raw,) = model.raw_predictions([image])
    ids, segments_info = raw.panoptic()
    assert torch.equal(explanation.masks.ids, ids)
    assert explanation.masks.segments_info == segments_info
    assert left_out(explanation) == sentences
    page = write_explanation(explanation, tmp_path)
    text = page.read_text(encoding="utf-8")
    shown = set(re.findall(r'<p class="panel">(This [^<]*)</p>', text))
    assert shown == set(sentences.values())

    browser.open(page)
    run = browser.driver.execute_script
    for query in explanation.masks.kept.tolist()[:2]:
        run(f"document.querySelector('.queries button[data-query=\"{query}\"]').click()")
        found = run(SHOWN)
        assert (found["query"], found["mask"]) == (str(query), True)
        assert found["stages"] == len(explanation.masks.stages)
        assert not found["limited"]
        assert found["canvases"] == [name for name in CANVASES if name not in sentences]
    for move in range(1, 8):
        run(f"document.querySelector('.moves a[href=\"#move{move}\"]').click()")
        assert run("return document.activeElement.id") == f"move{move}"
    assert browser.console_errors() == []
    browser.screenshot("explain_" + "_".join(names))


def test_pictures_leave_the_same_out(stranger, image, tmp_path):
    write_explanation(explain(stranger("AveragingTransformer", "ProductHead"), image), tmp_path)
    names = " ".join(path.stem for path in tmp_path.glob("*.png"))
    assert not re.search("attention|maps|stages", names)
    assert "move5_query" in names and "move7_final" in names


def test_attention_of_wide_queries_is_that_by_which_values_were_mixed(stranger, image):
    model = stranger("WideTransformer")
    explanation = explain(model, image)
    names = [attention.name for attention in explanation.decoder_attention]
    assert names == ["detector.transformer.attention.0", "detector.transformer.attention.1"]
    parts = [part for name in names for part in (name, f"{name}.v_proj")]
    with recording(model, dict.fromkeys(parts, output_of)) as calls:
        list(model.raw_predictions([image]))
    for attention in explanation.decoder_attention:
        assert attention.q.shape[1] == 2 * explanation.hidden.shape[2]
        values = calls[f"{attention.name}.v_proj"][0][0].unflatten(1, (attention.num_heads, -1))
        mixed = torch.einsum("mts,smc->tmc", attention.weights(), values).flatten(1)
        torch.testing.assert_close(mixed, calls[attention.name][0][0], atol=1e-5, rtol=1e-5)


def test_stages_that_do_not_run_without_queries(stranger, image, tmp_path):
    explanation = explain(stranger(head="StagedHead", kept=0), image)
    assert explanation.masks.stages == []
    assert left_out(explanation)["stages"] == (
        "No query is kept, and the mask head did not run all its parts, "
        "so only its mask logits are shown."
    )
    write_explanation(explanation, tmp_path)


def test_what_does_not_exist_is_named(stranger, image, monkeypatch):
    model = stranger("AveragingTransformer")
    wrong = {"encoder": ["missing"]}
    monkeypatch.setattr(AveragingTransformer, "explained_attention", lambda self: wrong)
    with pytest.raises(AttributeError, match="missing"):
        explain(model, image)

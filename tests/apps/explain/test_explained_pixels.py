"""What a mask head made of the pixels is explained by its embeddings, and by their similarity."""

from __future__ import annotations

import re

import pytest
import torch

from detr_d2.apps.explain import explain, write_explanation
from detr_d2.apps.explain.explained_pixels import ExplainedPixels
from detr_d2.apps.explain.left_out import left_out
from detr_d2.apps.explain.tensor_origins import origins

PIXEL = ("MODEL.DETR.MASK_HEAD.NAME", "PixelEmbeddingMaskHead", "MODEL.DETR.MASK_HEAD.WIDTH", 16)


@pytest.fixture(scope="module")
def pixel_model(make_model):
    return make_model(*PIXEL)


@pytest.fixture(scope="module")
def pixel_explanation(pixel_model, image):
    return explain(pixel_model, image)


@torch.no_grad()
def test_embeddings_are_the_models(pixel_model, pixel_explanation, image, panoptic_alone):
    masks, head = pixel_explanation.masks, pixel_model.mask_head
    ids, segments_info = panoptic_alone(pixel_model, image)
    assert torch.equal(masks.ids, ids) and masks.segments_info == segments_info
    detected = pixel_model.detector(pixel_model.preprocess([image]))
    pixels = head.pixel_embedding(
        detected.memory, detected.projected, None, *detected.mask_inputs()["laterals"]
    )[0]
    assert torch.equal(masks.embedded.pixels, pixels)
    queries = head.query_embedding(detected.hidden[-1, 0, masks.kept])
    assert torch.equal(masks.embedded.queries, queries)
    assert [stage.name for stage in masks.embedded.stages] == [
        f"mask_head.pixel_embedding.blocks.{i}.1" for i in range(4)
    ]


def test_similarity_times_lengths_is_the_logit(pixel_explanation):
    masks = pixel_explanation.masks
    for row, logits in enumerate(masks.logits):
        cosines = masks.embedded.similarity(row)
        assert cosines.abs().max() <= 1 + 1e-6
        lengths = masks.embedded.queries[row].norm() * masks.embedded.pixels.norm(dim=0)
        torch.testing.assert_close(cosines * lengths, logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_colors_show_the_directions_in_which_pixels_differ_most(channels):
    """Pixels are made along orthogonal directions of very different spread, turned at random."""
    rng = torch.Generator().manual_seed(0)
    spread = 10.0 ** -torch.arange(channels)
    parts = torch.randn(24 * 30, channels, generator=rng) * spread
    turn = torch.linalg.qr(torch.randn(channels, channels, generator=rng)).Q
    pixels = (parts @ turn.T + 3).T.unflatten(1, (24, 30))
    colors = ExplainedPixels(pixels, torch.zeros(0, channels), []).colors()
    assert colors.shape == (24, 30, 3) and colors.min() >= 0 and colors.max() <= 1
    for i in range(min(channels, 3)):
        both = torch.stack([colors[..., i].flatten(), parts[:, i]])
        assert both.corrcoef()[0, 1].abs() > 0.98
    assert not colors[..., channels:].any()


def test_pixels_that_are_all_alike_have_a_colour():
    colors = ExplainedPixels(torch.ones(4, 5, 6), torch.zeros(0, 4), []).colors()
    assert colors.isfinite().all()


def test_page_and_pictures_show_them(pixel_explanation, browser, tmp_path):
    assert left_out(pixel_explanation) == {}
    moves = origins(pixel_explanation)
    assert [origin.name for origin in moves[4]] == ["x"] * 4 + ["pixels"]
    assert [origin.name for origin in moves[5]] == ["embedded", "mask_logits"]
    page = write_explanation(pixel_explanation, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "Pixel embedding: 16 numbers for every pixel" in text
    assert not re.search("[Aa]ttention maps", re.sub("<script.*?</script>", "", text, flags=re.S))
    names = {path.stem for path in tmp_path.glob("*.png")}
    kept = pixel_explanation.masks.kept.tolist()
    assert {"move4_pixel_embedding", "move4_stages"} <= names
    assert {f"move5_query{query:03d}_similarity" for query in kept} <= names
    assert not any(re.fullmatch(r"move[45]_query\d+_(maps|stages)", name) for name in names)

    browser.open(page)
    run = browser.driver.execute_script
    seen = set()
    for query in kept:
        run(f"document.querySelector('.queries button[data-query=\"{query}\"]').click()")
        seen.add(run("return document.getElementById('similarity').src"))
    assert len(seen) == len(kept)
    assert browser.console_errors() == []
    browser.screenshot("explain_pixel_embedding")


def test_no_kept_query_has_no_similarity(make_model, image, tmp_path):
    explanation = explain(make_model(*PIXEL, kept=0), image)
    assert explanation.masks.embedded.queries.shape == (0, 16)
    write_explanation(explanation, tmp_path)

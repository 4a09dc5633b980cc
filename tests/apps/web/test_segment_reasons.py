"""What is said of a segment's queries is what the network said."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from detr_d2.apps.web.segment_reasons import MAX_QUERIES, attention_levels, reasons, surest_query
from detr_d2.modeling.inference_options import PanopticOptions
from detr_d2.modeling.upsampling import ImageSizes


def test_classes_and_boxes_are_the_querys(shown):
    segment = shown.segments_info[0]
    (reason,) = reasons(shown, segment)
    assert reason.index == segment["queries"][0]
    name, score = reason.top[0]
    assert name == shown.metadata.stuff_classes[segment["category_id"]]
    assert score == pytest.approx(segment["score"])
    scores = [score for _, score in reason.top]
    assert scores == sorted(scores, reverse=True)
    height, width = shown.image.shape[:2]
    x, y, w, h = shown.raw.boxes_cxcywh[reason.index].tolist()
    corners = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]).clip(0, 1)
    np.testing.assert_allclose(reason.box_xyxy, corners * [width, height, width, height], rtol=1e-5)


def test_mask_is_bright_where_its_logits_are_high(shown):
    segment = max(shown.segments_info, key=lambda s: s["area"])
    reason = reasons(shown, segment)[0]
    logits = shown.raw.masks(torch.tensor([reason.index]))[None]
    size = reason.mask.shape[:2]
    probability = torch.nn.functional.interpolate(logits, size, mode="bilinear")[0, 0].sigmoid()
    bright, dark = (probability > 0.9).numpy(), (probability < 0.1).numpy()
    assert bright.any() and dark.any()
    assert reason.mask[bright].mean() > reason.mask[dark].mean() + 30


def test_each_head_has_a_picture_and_its_share(shown):
    (reason,) = reasons(shown, shown.segments_info[0])
    assert len(reason.attention) == shown.attention_maps.shape[1] == 4
    assert reason.shares is None  # each has a softmax of its own
    joint = replace(shown, attention_maps=shown.attention_maps / 4)
    assert reasons(joint, shown.segments_info[0])[0].shares == pytest.approx([0.25] * 4)
    without = replace(shown, attention_maps=None)
    (reason,) = reasons(without, shown.segments_info[0])
    assert reason.attention == []


def test_attention_on_padding_is_cut_off():
    maps = torch.zeros(2, 3, 4)
    maps[:, :, 3] = 1  # the last column is padding
    maps[:, 0, 0] = 0.5
    sizes = ImageSizes(padded=(96, 128), network=(80, 96), output=(40, 48))
    for levels in attention_levels(maps, sizes):
        assert levels.shape == (80, 96)
        assert (levels[:32, :32] > 120).all()
        assert not levels[:, 32:].any()


def test_the_surest_of_many_queries_are_shown(shown):
    segment = shown.segments_info[0] | {"queries": list(range(8))}
    scores = shown.raw.logits.softmax(-1)[:, segment["category_id"]]
    found = [reason.index for reason in reasons(shown, segment)]
    assert found == scores.argsort(descending=True)[:MAX_QUERIES].tolist()


def test_surest_query_of_an_empty_picture(shown):
    name, score = surest_query(shown.merged(PanopticOptions(1.0, "merged", 0)))
    best = max(shown.segments_info, key=lambda s: s["score"])
    assert name == shown.metadata.stuff_classes[best["category_id"]]
    assert score == pytest.approx(best["score"])

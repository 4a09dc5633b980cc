"""What the log says of a file that was loaded."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace

import pytest
import torch
from detectron2.modeling import build_model

from detr_d2.checkpoint import Fitted, fit, from_content, loading_table, log_loaded, tensor_table
from detr_d2.modeling import DETR

# The reference's names, some of which hold others.
REFERENCE = {
    "encoder_layers.": "encoder.layers.",
    "decoder_layers.": "decoder.layers.",
    "encoder_norm.": "encoder.norm.",
    "decoder_norm.": "decoder.norm.",
    "cross_attention_residual.norm.": "norm2.",
    "self_attention_residual.norm.": "norm1.",
    "self_attention.": "self_attn.",
    "cross_attention.": "multihead_attn.",
    "feed_forward.0.": "linear1.",
    "feed_forward.3.": "linear2.",
    "class_head.": "class_embed.",
    "box_head.": "bbox_embed.",
    "backbone.": "backbone.0.backbone.",
    "detector.": "",
}
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def make_model(make_tiny_cfg, tmp_path_factory):
    """Builds tiny models of 12 classes and 8 queries, with the sines of all released models."""
    folder = tmp_path_factory.mktemp("report")
    sines = ("MODEL.DETR.POSITION_TEMPERATURE", 10000.0)
    return lambda *overrides: build_model(make_tiny_cfg(folder, *sines, *overrides))


@pytest.fixture(scope="module")
def model(make_model) -> DETR:
    return make_model()


def fit_to(model: DETR, weights: Weights, resize: bool = False, to_train: bool = True) -> Fitted:
    checkpoint = from_content({"model": weights}, "folder/file.pth")
    rules = replace(model.loading_rules, resize=resize)
    return fit(checkpoint, model.state_dict(), rules, to_train=to_train)


def as_reference(weights: Weights) -> Weights:
    """A detector under the names of the reference's Detectron2 wrapper, attention's joined."""
    renamed = {"criterion.empty_weight": torch.ones(13)}
    for name, tensor in weights.items():
        if name.startswith("mask_head.") or "k_proj" in name or "v_proj" in name:
            continue
        if "q_proj" in name:
            tensor = torch.cat([weights[name.replace("q_proj", f"{x}_proj")] for x in "qkv"])
            name = name.replace("q_proj.", "in_proj_")
        last_norm = "norm3." if "decoder_layers" in name else "norm2."
        name = name.replace("feed_forward_residual.norm.", last_norm)
        for own, theirs in REFERENCE.items():
            name = name.replace(own, theirs)
        renamed[name] = tensor
    return renamed


def cells(table: str) -> list[tuple[str, ...]]:
    """The rows of a Markdown table, without its head and the line below."""
    lines = table.splitlines()[2:]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]


def numbers_of_batches(weights: Weights) -> int:
    return sum(name.endswith("num_batches_tracked") for name in weights)


def test_a_file_that_is_loaded_as_it_is(model):
    weights = model.state_dict()
    fitted = fit_to(model, weights, to_train=False)
    rows = cells(loading_table(fitted))
    assert {action for action, *_ in rows} == {"as it is"}
    assert sum(int(count) for _, count, *_ in rows) == len(weights)
    assert all(in_file == in_model for *_, in_file, in_model in rows)
    assert ("as it is", "2", "detector.class_head.*", "detector.class_head.*") in rows
    query_embed = "detector.query_embed.weight"
    assert ("as it is", "1", query_embed, query_embed) in rows
    table = loading_table(fitted)
    heads = [cell.strip() for cell in table.splitlines()[0].strip("|").split("|")]
    assert heads == ["what", "tensors", "in the file", "in the model"]


def test_a_file_of_another_kind(model):
    """A detector of the reference, to train masks from."""
    weights = model.state_dict()
    batches = numbers_of_batches(weights)
    assert batches > 0
    in_mask_head = Counter("attention_map" in name for name in weights if "mask_head" in name)
    in_backbone = sum(name.startswith("detector.backbone.") for name in weights)
    in_transformer = sum(name.startswith("detector.transformer.") for name in weights)
    attentions = 1 + 2 * 2  # of the encoder's layer and the decoder's two
    split = 3 * 2 * attentions
    rows = cells(loading_table(fit_to(model, as_reference(weights))))
    assert rows == [
        (
            "renamed",
            str(in_backbone - batches),
            "backbone.0.backbone.*",
            "detector.backbone.*",
        ),
        ("renamed", "2", "input_proj.*", "detector.input_proj.*"),
        ("split", str(split), "transformer.*", "detector.transformer.*"),
        ("renamed", str(in_transformer - split), "transformer.*", "detector.transformer.*"),
        ("renamed", "1", "query_embed.weight", "detector.query_embed.weight"),
        ("renamed", "2", "class_embed.*", "detector.class_head.*"),
        ("renamed", "6", "bbox_embed.layers.*", "detector.box_head.layers.*"),
        ("initial value", str(batches), "", "detector.backbone.*"),
        ("initial value", str(in_mask_head[True]), "", "mask_head.attention_map.*"),
        ("initial value", str(in_mask_head[False]), "", "mask_head.*"),
        ("ignored", "1", "criterion.empty_weight", ""),
        ("ignored", str(batches), "backbone.0.backbone.*", ""),
    ]


def resized(weights: Weights) -> Weights:
    """Of 6 classes and 11 queries."""
    changed = {"weight": torch.zeros(7, 32), "bias": torch.zeros(7)}
    queries = {"detector.query_embed.weight": torch.zeros(11, 32)}
    return {**weights, **{f"detector.class_head.{k}": v for k, v in changed.items()}, **queries}


def test_what_was_resized(model):
    rows = cells(loading_table(fit_to(model, resized(model.state_dict()), resize=True)))
    names = "ball, crate, cone, star, ring, bush and 6 more"
    head, queries = "detector.class_head.*", "detector.query_embed.weight"
    fresh = f"rows by name: 0 classes kept, 12 fresh ({names})"
    assert (fresh, "2", head, head) in rows
    assert ("rows the first, of 11", "1", queries, queries) in rows
    assert sum(int(count) for _, count, *_ in rows) == len(model.state_dict())


def test_what_is_ignored(model, make_model):
    """By a bare detector: a mask head."""
    bare, weights = make_model("MODEL.DETR.MASK_ON", False), model.state_dict()
    rows = cells(loading_table(fit_to(bare, weights)))
    ignored = [row for row in rows if row[0] == "ignored"]
    assert all("mask_head" in in_file and not in_model for *_, in_file, in_model in ignored)
    counts = [sum(int(row[1]) for row in chosen) for chosen in (rows, ignored)]
    assert counts == [len(weights), len(weights) - len(bare.state_dict())]


def test_every_tensor_has_its_line_and_shape(model):
    weights = as_reference(resized(model.state_dict()))
    fitted = fit_to(model, weights, resize=True)
    rows = cells(tensor_table(fitted))
    assert len(rows) == len(fitted.weights) + len(fitted.initial) + len(fitted.ignored)
    assert {in_file for _, in_file, _ in rows} - {""} == weights.keys()
    assert {name.split(" ")[0] for *_, name in rows} - {""} == model.state_dict().keys()
    layer = "detector.transformer.encoder_layers.0.self_attention"
    in_proj = "transformer.encoder.layers.0.self_attn.in_proj_weight"
    queries = "detector.query_embed.weight 11×32 → 8×32"
    for row in (
        ("split", in_proj, f"{layer}.v_proj.weight 32×32"),
        ("renamed", "bbox_embed.layers.2.bias", "detector.box_head.layers.2.bias 4"),
        ("rows the first, of 11", "query_embed.weight", queries),
        ("initial value", "", "mask_head.output_conv.bias"),
        ("ignored", "criterion.empty_weight", ""),
    ):
        assert row in rows
    shapes = [name for *_, name in rows if name.startswith("detector.class_head.")]
    assert [name.partition(" ")[2] for name in shapes] == ["7×32 → 13×32", "7 → 13"]


def test_one_line_says_what_was_recognised(model, caplog):
    logger = logging.getLogger("detr_d2.tests")
    fitted = fit_to(model, as_reference(model.state_dict()))
    fitted.warnings.append("Something is odd.")
    with caplog.at_level(logging.INFO, logger.name):
        log_loaded(logger, fitted)
    (loaded, table), warning = caplog.messages[0].split("\n", 1), caplog.records[1]
    assert loaded == "Loaded folder/file.pth, recognised as the reference DETR (detector)"
    assert table == loading_table(fitted)
    assert warning.levelno == logging.WARNING
    assert warning.getMessage() == "folder/file.pth: Something is odd."
    assert len(caplog.records) == 2

"""Whole models against transformers' DETR: the same weights and images, the same outputs."""

from __future__ import annotations

import pytest
import torch

TOLERANCE = 1e-4
# Of the released models.
FULL = {
    "d_model": 256,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_ffn_dim": 2048,
    "decoder_ffn_dim": 2048,
    "num_queries": 100,
}
# Wide enough for the mask head's group norms not to blow up rounding.
R50 = {"backbone": "resnet50", "d_model": 64}
DC5 = {**R50, "dilation": True}
# No side is divisible by 32. In the batch of three, rows and columns of the grid are padding or not
# by the nearest pixel, and not by rounding the image's size up.
ODD = [(75, 97)]
PADDED = [(97, 75), (64, 110), (50, 40)]


def test_full_r50_with_the_masks_of_all_queries(make_pair, make_images, record_parity):
    pair = make_pair(**FULL, backbone="resnet50", num_labels=250, attention_weight=500)
    images = make_images((800, 1066))
    expected = pair.run_theirs(images)
    assert expected.pred_masks.shape == (1, 100, 200, 267)
    assert 0.5 < expected.pred_masks.std() < 5
    for outputs in (expected.logits, expected.pred_boxes, expected.pred_masks):  # queries differ
        assert outputs.std(dim=1).amax() > 100 * TOLERANCE
    for kind, difference in pair.run_ours(images).differences(expected).items():
        record_parity(f"R50, 100 queries, 800×1066: {kind}", difference, TOLERANCE)


def test_full_r101_detector(make_pair, make_images, record_parity):
    pair = make_pair(**FULL, backbone="resnet101", num_labels=91, masks=False)
    images = make_images((256, 320))
    expected = pair.run_theirs(images)
    assert expected.logits.std(dim=1).amax() > 100 * TOLERANCE
    differences = pair.run_ours(images).differences(expected)
    assert set(differences) == {"logits", "boxes"}
    for kind, difference in differences.items():
        record_parity(f"R101 detector, 100 queries, 256×320: {kind}", difference, TOLERANCE)


@pytest.mark.parametrize("sizes", [ODD, PADDED], ids=["alone", "padded"])
@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("R50", R50),
        ("R50-DC5", DC5),
        ("tiny ResNet without timm", {}),
        ("learned positions", {"position_embedding_type": "learned"}),
        ("R50-DC5, learned positions", {**DC5, "position_embedding_type": "learned"}),
        (
            "other width, heads, layers, queries",
            {
                "d_model": 64,
                "encoder_attention_heads": 16,
                "decoder_attention_heads": 16,
                "encoder_layers": 3,
                "decoder_layers": 1,
                "encoder_ffn_dim": 80,
                "decoder_ffn_dim": 80,
                "num_queries": 13,
            },
        ),
        ("narrowest, no encoder", {"d_model": 16, "encoder_layers": 0}),
        ("bare detector", {"masks": False}),
    ],
)
def test_small_variants(make_pair, make_images, record_parity, what, changes, sizes):
    pair, images = make_pair(**changes), make_images(*sizes)
    expected = pair.run_theirs(images)
    for outputs in (expected.logits, expected.pred_masks):
        assert outputs is None or outputs.std(dim=1).amax() > 100 * TOLERANCE
    differences = pair.run_ours(images).differences(expected)
    assert ("masks" in differences) == changes.get("masks", True)
    record_parity(f"{what}: all outputs", max(differences.values()), TOLERANCE)


@pytest.mark.parametrize("changes", [{}, DC5], ids=["stride 32", "stride 16"])
@torch.no_grad()
def test_padding_on_the_grid_is_transformers(make_pair, make_images, changes):
    pair, images = make_pair(**changes), make_images(*PADDED)
    backbone = pair.theirs.detr.model.backbone
    _, valid = backbone(**pair.inputs_of_theirs(images))[-1]
    batch = pair.ours.preprocess([{"image": image} for image in images])
    padding = pair.ours.detector(batch).padding_mask
    assert torch.equal(padding, ~valid)
    stride = 16 if changes else 32
    rounded_up = [(-(-height // stride), -(-width // stride)) for height, width in PADDED]
    on_grid = [(v.any(1).sum().item(), v.any(0).sum().item()) for v in valid]
    assert on_grid != rounded_up


def test_dilated_res5_of_timm_is_torchvisions(make_pair):
    """The first block sees the grid of res4 and stays undilated, as in the released weights."""
    backbone = make_pair(**DC5).theirs.detr.model.backbone.model
    dilations = [block.conv2.dilation for block in backbone.layer4]
    assert dilations == [(1, 1), (2, 2), (2, 2)]

"""What a transformer may ask for and return: targets, further losses, reference boxes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from detr_d2.modeling import DETR_TRANSFORMER_REGISTRY, Transformer


@pytest.fixture
def denoising(monkeypatch):
    """A registered transformer that needs targets; what it was given, call by call."""
    registered = dict(DETR_TRANSFORMER_REGISTRY._obj_map)
    monkeypatch.setattr(DETR_TRANSFORMER_REGISTRY, "_obj_map", registered)
    given = []

    @DETR_TRANSFORMER_REGISTRY.register()
    class Denoising(Transformer):
        needs_targets = True

        def forward(self, features, padding_mask, positions, query_embed, targets=None):
            given.append(targets)
            transformed = super().forward(features, padding_mask, positions, query_embed)
            if targets is None:
                return transformed
            return replace(transformed, losses={"loss_denoising": transformed.hidden.sum()})

    return given


def test_it_gets_targets_in_training_and_its_losses_are_trained(denoising, tiny_model, make_batch):
    model, batch = tiny_model({"MODEL.DETR.TRANSFORMER_NAME": "Denoising"}), make_batch((64, 64))
    losses = model(batch)
    assert [len(target) for target in denoising.pop()] == [len(batch[0]["instances"])]
    assert losses["loss_denoising"].requires_grad and "loss_mask" in losses
    model.eval()(batch)
    assert denoising.pop() is None


def test_a_frozen_detector_has_none_of_its_losses(denoising, tiny_model, make_batch):
    overrides = {
        "MODEL.DETR.TRANSFORMER_NAME": "Denoising",
        "MODEL.DETR.FREEZE_DETECTOR": True,
    }
    losses = tiny_model(overrides)(make_batch((64, 64)))
    assert losses.keys() == {"loss_mask", "loss_dice"}
    assert denoising == [None]


def test_detrs_own_gets_no_targets(tiny_model, make_batch, monkeypatch):
    model, given = tiny_model(), []
    forward = model.detector.encode
    monkeypatch.setattr(
        model.detector, "encode", lambda *args: (given.append(args[-1]), forward(*args))[1]
    )
    model(make_batch((64, 64)))
    assert given == [None]


@pytest.mark.parametrize("width", [2, 4])
@torch.no_grad()
def test_boxes_start_from_reference_boxes(tiny_model, width):
    """With a box head that gives 0, boxes are the reference, completed by the middle of [0, 1]."""
    detector = tiny_model().detector
    for parameter in detector.box_head.parameters():
        parameter.zero_()
    hidden = torch.randn(2, 3, 7, 32)  # L×B×Q×D
    reference = torch.rand(7, width) * 0.9 + 0.05
    _, boxes = detector.predict(hidden, reference.expand(2, 3, 7, width))
    expected = torch.cat([reference, torch.full((7, 4 - width), 0.5)], dim=1)
    torch.testing.assert_close(boxes, expected.expand_as(boxes), rtol=1e-5, atol=1e-6)
    _, nowhere = detector.predict(hidden, None)
    assert (nowhere == 0.5).all()

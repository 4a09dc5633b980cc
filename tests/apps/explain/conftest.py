"""A tiny model that keeps some of its queries, and an image for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch


@pytest.fixture(scope="session")
def image() -> dict:
    """As the model takes it; its output has another size."""
    pixels = torch.randint(0, 256, (3, 64, 80), generator=torch.Generator().manual_seed(0))
    return {"image": pixels.float(), "height": 96, "width": 120}


@pytest.fixture(scope="session")
def make_model(make_tiny_cfg, tmp_path_factory, image) -> Callable:
    """Makes random models: ``(*overrides, kept=5)``, of whose 8 queries so many are kept."""
    from detectron2.modeling import build_model

    def make(*overrides: object, kept: int = 5):
        torch.manual_seed(0)
        model = build_model(make_tiny_cfg(tmp_path_factory.mktemp("model"), *overrides)).eval()
        # Queries that have learned nothing are all alike, and so are their classes and masks.
        torch.nn.init.normal_(model.detector.query_embed.weight, std=3.0)
        for name, module in model.named_modules():
            if name.endswith(("q_proj", "k_proj")):
                module.weight.data *= 3
        if hasattr(model.mask_head, "attention_map"):
            of_attention = -model.mask_head.attention_map.num_heads
            weight = model.mask_head.input_conv.weight.data[:, of_attention:]
            torch.nn.init.normal_(weight, std=20.0)
        model.detector.class_head.weight.data *= 10
        model.detector.class_head.bias.data[-1] = -20.0
        (raw,) = model.raw_predictions([image])
        scores = raw.logits.softmax(-1)[:, :-1].amax(-1).sort(descending=True).values.tolist()
        threshold = sum([1.0, *scores, 0.0][kept : kept + 2]) / 2
        panoptic = replace(model.options.panoptic, score_thresh=threshold)
        model.options = replace(model.options, panoptic=panoptic)
        return model

    return make


@pytest.fixture(scope="session")
def panoptic_alone() -> Callable:
    """Asks a model for the panoptic picture of an image alone: ``(model, image)``.

    Then its masks are made in the same chunks as an explanation's, and so the same bit for bit.
    """

    def predict(model, image: dict) -> tuple[torch.Tensor, list[dict]]:
        (raw,) = model.raw_predictions([image])
        return raw.panoptic()

    return predict


@pytest.fixture(scope="session")
def model(make_model):
    """To be left as it is."""
    return make_model()


@pytest.fixture(scope="session")
def explanation(model, image):
    from detr_d2.apps.explain import explain

    return explain(model, image)

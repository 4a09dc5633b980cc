"""Models with backbones of timm as ONNX: those that pad images, and vision transformers."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model
from oracles.spread_queries import spread_queries

from detr_d2.export import ExportOptions

pytest.importorskip("timm")


@pytest.mark.parametrize("name", ["test_convnext", "test_vit"])
def test_ids_are_those_of_the_model(tiny_cfg_of, export, images, record_agreement, name):
    cfg = tiny_cfg_of(
        "pixel embedding",
        *("MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", name),
        *("MODEL.TIMM.PYRAMID_WIDTH", 32, "MODEL.PIXEL_MEAN", [], "MODEL.PIXEL_STD", []),
    )
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    spread_queries(model)
    exported = export(model, ExportOptions())
    for image in images((97, 131), (64, 96)):
        size = tuple(image.shape[-2:])
        ids, _ = model([{"image": image}])[0]["panoptic_seg"]
        assert len(ids.unique()) > 2
        actual = torch.from_numpy(exported.run(image, size)["ids"])
        record_agreement(f"a backbone of timm, {name}", float((actual == ids).float().mean()))

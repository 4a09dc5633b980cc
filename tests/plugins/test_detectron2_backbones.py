"""Detectron2's own backbones, as docs/backbones.md builds them: training and prediction."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from detectron2.modeling import BACKBONE_REGISTRY

from detr_d2.data.shapes.synthetic_scenes import draw_scene
from detr_d2.engine import train
from detr_d2.export.export_options import check_exportable
from detr_d2.predictor import Predictor

PAGE = Path(__file__).resolve().parents[2] / "docs" / "backbones.md"
NAMES = ("build_regnetx_400mf", "build_swin_tiny", "build_vit_tiny")


@pytest.fixture(scope="module")
def snippet():
    """What the page's code defines; its backbones are registered meanwhile."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {}
    exec(compile(code, PAGE.name, "exec"), names)
    yield names
    for name in NAMES:
        BACKBONE_REGISTRY._obj_map.pop(name)


@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # Detectron2's Swin calls it the old way
@pytest.mark.parametrize("name", NAMES)
def test_it_trains_both_stages_and_predicts(snippet, make_tiny_cfg, tmp_path, name):
    cfg = make_tiny_cfg(
        tmp_path,
        *("MODEL.BACKBONE.NAME", name, "MODEL.DETR.IN_FEATURES", snippet["IN_FEATURES"][name]),
        *("SOLVER.MAX_ITER", 1, "SOLVER.MASK_STAGE.MAX_ITER", 1, "DATASETS.TEST", ()),
    )
    train(cfg)
    cfg.MODEL.WEIGHTS = str(tmp_path / "masks" / "model_final.pth")
    cfg.DATASETS.TEST = ("small_shapes_val",)
    predictor = Predictor(cfg)
    ids, _ = predictor(draw_scene((7, 7)).image[:, :, ::-1])["panoptic_seg"]
    assert ids.shape == (96, 96)
    saved = torch.load(cfg.MODEL.WEIGHTS, weights_only=True)["detr_d2"]["settings"]
    assert saved["backbone"] is None  # its tensors tell it
    if name == "build_vit_tiny":
        with pytest.raises(ValueError, match="pads images to multiples of 32"):
            check_exportable(predictor.model)
    else:
        check_exportable(predictor.model)

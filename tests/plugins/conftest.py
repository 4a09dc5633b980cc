"""Runs a plug-in through both training stages, prediction, export and explanation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from oracles.spread_queries import spread_queries
from torch.fx.experimental import _config as symbolic_config

from detr_d2.apps.explain import explain_image, write_explanation
from detr_d2.data.shapes.synthetic_scenes import draw_scene
from detr_d2.deploy import OnnxPredictor
from detr_d2.engine import train
from detr_d2.export import export_model
from detr_d2.modeling import DETR
from detr_d2.predictor import Predictor


@pytest.fixture(scope="session", autouse=True)
def needed_torch() -> None:
    if not hasattr(symbolic_config, "backed_size_oblivious"):
        pytest.skip("exporting needs PyTorch 2.8 or newer")


@dataclass(frozen=True)
class Journey:
    """The results of a plug-in.

    Attributes:
        model: the trained model.
        before: its weights before the stage "masks".
        segments_info: segments of the prediction.
        equal_ids: the share of pixels that have the same id in PyTorch and in onnxruntime.
        page: the text of ``explain.html``.
    """

    model: DETR
    before: dict[str, torch.Tensor]
    segments_info: list[dict]
    equal_ids: float
    page: str


@pytest.fixture
def travel(make_tiny_cfg, tmp_path: Path) -> Callable[..., Journey]:
    """A function of config overrides that trains both stages, predicts, exports and explains."""

    def make(*overrides: object) -> Journey:
        steps = ("SOLVER.MAX_ITER", 2, "SOLVER.MASK_STAGE.MAX_ITER", 2, "DATASETS.TEST", ())
        cfg = make_tiny_cfg(tmp_path / "run", *steps, *overrides)
        train(cfg)
        stages = tmp_path / "run"
        before = torch.load(stages / "boxes" / "model_final.pth", weights_only=True)["model"]
        cfg.MODEL.WEIGHTS = str(stages / "masks" / "model_final.pth")
        cfg.DATASETS.TEST = ("small_shapes_val",)
        predictor = Predictor(cfg)
        trained = copy.deepcopy(predictor.model)
        # After so few steps all queries are alike, and rounding decides which has a pixel.
        spread_queries(predictor.model)
        cfg.MODEL.WEIGHTS = str(tmp_path / "spread.pth")
        torch.save({"model": predictor.model.state_dict()}, cfg.MODEL.WEIGHTS)
        image = draw_scene((7, 7)).image[:, :, ::-1]  # BGR
        ids, segments_info = predictor(image)["panoptic_seg"]

        export_model(cfg, tmp_path / "model.onnx")
        exported, _ = OnnxPredictor(tmp_path / "model.onnx")(image)["panoptic_seg"]
        page = write_explanation(explain_image(predictor, image), tmp_path / "explained")
        return Journey(
            model=trained,
            before=before,
            segments_info=segments_info,
            equal_ids=float((torch.as_tensor(exported) == ids).float().mean()),
            page=page.read_text(encoding="utf-8"),
        )

    return make

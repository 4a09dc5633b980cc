"""Tiny models whose queries differ, their exported files, and how far both agree."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detr_d2.benchmark.weights import random_image
from detr_d2.export import ExportOptions
from detr_d2.export.onnx_file import to_onnx
from detr_d2.export.program import Interface, trace
from detr_d2.modeling import DETR

# Share of pixels with the same id, the lowest of each kind.
FIGURES: dict[str, float] = {}
WANTED = 0.999


# PyTorch traces its own compiling in detail wherever a logger listens, as pytest's does: slow.
logging.getLogger("torch.__trace").disabled = True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("export: pixels with the same id, lowest")
        width = max(map(len, FIGURES))
        for what, share in FIGURES.items():
            terminalreporter.line(f"{what:{width}}  {100 * share:8.4f} %")


@pytest.fixture(scope="session")
def record_agreement() -> Callable[[str, float], None]:
    """Checks a share of equal pixels, and keeps the lowest for the table at the end of the run."""

    def record(what: str, share: float) -> None:
        FIGURES[what] = min(FIGURES.get(what, 1.0), share)
        assert share >= WANTED, f"{what}: {100 * share:.3f} % of pixels have the same id"

    return record


@pytest.fixture(scope="session")
def images() -> Callable[..., list[torch.Tensor]]:
    """Random 3×H×W uint8 images of the given sizes, with structure at all scales."""

    def make(*sizes: tuple[int, int], seed: int = 1) -> list[torch.Tensor]:
        rng = torch.Generator().manual_seed(seed)
        return [random_image(size, rng) for size in sizes]

    return make


@pytest.fixture(scope="session")
def tiny_cfg_of(make_tiny_cfg, tmp_path_factory) -> Callable:
    """The tiny config on embedded data (res5 dilated, stuff merged), smaller still."""

    def make(*overrides: object):
        return make_tiny_cfg(
            tmp_path_factory.mktemp("output"),
            *("MODEL.DETR.DEC_LAYERS", 1, "MODEL.DETR.NUM_QUERIES", 16),
            *("MODEL.DETR.TEST.SCORE_THRESH", 0.6, "MODEL.DETR.TEST.MIN_AREA", 40),
            *overrides,
        )

    return make


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., DETR]:
    """A random model of a config whose queries differ as those of trained models do.

    ``(cfg, whole=False)``: its stages have two blocks, one of each kind, since the rest would only
    take time to export, unless it shall be the whole model of the config.
    """

    def make(cfg, whole: bool = False) -> DETR:
        torch.manual_seed(0)
        model = DETR(cfg).eval()
        for stage in model.detector.backbone.stages:
            del stage[len(stage) if whole else 2 :]
        _spread_queries(model)
        return model

    return make


@torch.no_grad()
def _spread_queries(model: DETR) -> None:
    """Makes queries name many classes with confidence, and masks depend on them."""
    for module in model.modules():
        if hasattr(module, "running_var"):
            module.weight.uniform_(0.4, 1)
            module.bias.uniform_(-0.2, 0.2)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2)
    detector, head = model.detector, model.detector.class_head
    detector.query_embed.weight.normal_(std=3)
    for name, module in detector.transformer.named_modules():
        if name.endswith(("q_proj", "k_proj")):
            module.weight.mul_(2)
    rng = torch.Generator().manual_seed(0)
    batches = [[{"image": random_image((97, 130), rng)}] for _ in range(4)]
    hidden = torch.cat([detector(model.preprocess(batch)).hidden[-1] for batch in batches])
    head.bias.zero_()
    head.weight *= 4 / head(hidden).std((0, 1)).mean()
    head.bias.copy_(-head(hidden).mean((0, 1)))
    hidden_dim = model.mask_head.attention_map.q_proj.in_features
    nn.init.normal_(model.mask_head.input_conv.weight[:, hidden_dim:], std=20)


@dataclass(frozen=True)
class Exported:
    """A model and the session of its file.

    Attributes:
        model: ours.
        session: onnxruntime's.
        proto: the file's content.
    """

    model: DETR
    session: object
    proto: object

    def seeing_nothing(self) -> Exported:
        """The same file with a bias of the class head by which no query is kept."""
        import onnx
        import onnxruntime

        proto = copy.deepcopy(self.proto)
        (bias,) = (x for x in proto.graph.initializer if x.name.endswith("class_head.bias"))
        nothing = onnx.numpy_helper.to_array(bias).copy()
        nothing[-1] += 1000
        bias.CopyFrom(onnx.numpy_helper.from_array(nothing, bias.name))
        return Exported(self.model, onnxruntime.InferenceSession(proto.SerializeToString()), proto)

    def run(self, image: torch.Tensor, output_size: tuple[int, int] | None = None) -> dict:
        """Outputs by their names; ``image`` has no axis for the batch, or one."""
        feed = {"image": (image if image.dim() == 4 else image[None]).numpy()}
        if output_size is not None:
            feed["output_size"] = np.array(output_size, dtype=np.int64)
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(None, feed), strict=True))


@pytest.fixture(scope="session")
def export() -> Callable[..., Exported]:
    """Exports a model to ONNX and opens it: ``(model, options, metadata={})``."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")

    def make(model: DETR, options: ExportOptions, metadata: dict | None = None) -> Exported:
        proto = to_onnx(trace(model, options), Interface.of(options), metadata or {})
        return Exported(model, runtime.InferenceSession(proto.SerializeToString()), proto)

    return make


R50_REFERENCE = (
    *("MODEL.RESNETS.RES5_DILATION", 1, "MODEL.DETR.PRE_NORM", False),
    *("MODEL.DETR.TEST.STUFF_MERGING", "reference"),
    *("MODEL.DETR.MASK_HEAD.ATTENTION_SOFTMAX", "joint"),
)


@pytest.fixture(scope="session")
def panoptic_models(tiny_cfg_of, tiny_model, export) -> Callable[[str], Exported]:
    """Models for images of any size, each exported once: "R50, reference" and "DC5, merged"."""
    overrides = {"R50, reference": R50_REFERENCE, "DC5, merged": ()}
    made: dict[str, Exported] = {}

    def get(name: str) -> Exported:
        if name not in made:
            made[name] = export(tiny_model(tiny_cfg_of(*overrides[name])), ExportOptions())
        return made[name]

    return get


@pytest.fixture(scope="session")
def raw_model(tiny_cfg_of, tiny_model, export) -> Exported:
    """The raw form for any batch, with the masks of the best three queries."""
    model = tiny_model(tiny_cfg_of("MODEL.RESNETS.RES5_DILATION", 1))
    return export(model, ExportOptions(form="raw", top_k=3))


@pytest.fixture(scope="session")
def tiny_weights(tiny_cfg_of, tiny_model, tmp_path_factory) -> Path:
    """A checkpoint of the tiny model."""
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save({"model": tiny_model(tiny_cfg_of(), whole=True).state_dict()}, path)
    return path


@pytest.fixture
def plain_while_loop(monkeypatch) -> Iterator[None]:
    """``torch.while_loop`` as Python has it, which needn't compile anything."""

    def while_loop(condition: Callable, body: Callable, state: tuple) -> tuple:
        while condition(*state):
            state = body(*state)
        return state

    monkeypatch.setattr(torch, "while_loop", while_loop)
    yield

"""Tiny models whose queries differ, their exported files, and how far both agree."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from benchmarks.weights import random_image
from detectron2.modeling import build_model
from oracles.spread_queries import spread_queries
from torch.export import ExportedProgram
from torch.fx.experimental import _config as symbolic_config

from detr_d2.export import ExportOptions
from detr_d2.export.onnx_file import to_onnx
from detr_d2.export.traced_program import Interface, trace
from detr_d2.modeling import DETR

if TYPE_CHECKING:
    import onnx
    import onnxruntime

# The lowest share of pixels with the same id.
WANTED = 0.999


# PyTorch traces its own compiling in detail wherever a logger listens, as pytest's does: slow.
logging.getLogger("torch.__trace").disabled = True


@pytest.fixture(scope="session", autouse=True)
def needed_torch() -> None:
    if not hasattr(symbolic_config, "backed_size_oblivious"):
        pytest.skip("exporting needs PyTorch 2.8 or newer")


@pytest.fixture
def record_agreement(record_figure: Callable[..., None]) -> Callable[[str, float], None]:
    """Checks a share of pixels with the same id, and shows the lowest at the end of the run."""

    def record(what: str, share: float) -> None:
        record_figure(f"pixels with the same id, {what}", share, "{:.4%}", "min")
        assert share >= WANTED, f"{what}: {100 * share:.3f} % of pixels have the same id"

    return record


@pytest.fixture(scope="session")
def images() -> Callable[..., list[torch.Tensor]]:
    """Random 3×H×W uint8 images of the given sizes, with structure at all scales."""

    def make(*sizes: tuple[int, int], seed: int = 1) -> list[torch.Tensor]:
        rng = torch.Generator().manual_seed(seed)
        return [random_image(size, rng) for size in sizes]

    return make


# What each tiny model has in place of what the config of the embedded data says: a dilated res5,
# pre-norm, a softmax per head, stuff merged.
_R50 = (
    *("MODEL.RESNETS.RES5_DILATION", 1, "MODEL.DETR.PRE_NORM", False),
    *("MODEL.DETR.MASK_HEAD.ATTENTION_SOFTMAX", "joint"),
)
_REFERENCE = ("MODEL.DETR.TEST.STUFF_MERGING", "reference")
OVERRIDES = {
    "R50, reference": (*_R50, *_REFERENCE),
    "R50, merged": _R50,
    "DC5, reference": _REFERENCE,
    "DC5, merged": (),
    "learned positions": ("MODEL.DETR.POSITION_EMBEDDING", "learned"),
    "pixel embedding": (*_R50, "MODEL.DETR.MASK_HEAD.NAME", "PixelEmbeddingMaskHead"),
}
# The one that the command exports; the others never leave memory.
OF_THE_TOOL = "R50, reference"


@pytest.fixture(scope="session")
def tiny_cfg_of(make_tiny_cfg, tmp_path_factory) -> Callable:
    """The config of a tiny model: ``(name, *overrides)``, the name a key of ``OVERRIDES``."""

    def make(name: str, *overrides: object):
        return make_tiny_cfg(
            tmp_path_factory.mktemp("output"),
            *("MODEL.DETR.DEC_LAYERS", 1, "MODEL.DETR.NUM_QUERIES", 16),
            *("MODEL.DETR.TEST.SCORE_THRESH", 0.6, "MODEL.DETR.TEST.MIN_AREA", 40),
            *OVERRIDES[name],
            *overrides,
        )

    return make


def _short_model(cfg) -> DETR:
    """A model with a few blocks, the dilated one included: more would only take time to export."""
    model = build_model(cfg).eval()
    *stages, res5 = model.detector.backbone.stages
    del res5[2:]
    for stage in stages:
        del stage[1:]
    return model


@pytest.fixture(scope="session")
def tiny_model(tiny_cfg_of) -> Callable[..., DETR]:
    """A random model whose queries differ as those of trained models do: ``(name, *overrides)``.

    Each is made once.
    """

    @functools.cache
    def make(name: str, *overrides: object) -> DETR:
        torch.manual_seed(0)
        model = _short_model(tiny_cfg_of(name, *overrides))
        spread_queries(model)
        return model

    return make


@dataclass(frozen=True)
class Exported:
    """A model and what was exported of it.

    Attributes:
        model: ours.
        program: of torch.export, where it is at hand.
        proto: the ONNX file's content.
        session: onnxruntime's.
    """

    model: DETR
    program: ExportedProgram | None
    proto: onnx.ModelProto
    session: onnxruntime.InferenceSession

    @classmethod
    def of(cls, model: DETR, proto: onnx.ModelProto, program: ExportedProgram | None = None):
        """Opens a file."""
        import onnxruntime

        return cls(model, program, proto, onnxruntime.InferenceSession(proto.SerializeToString()))

    def seeing_nothing(self) -> Exported:
        """The same file with a bias of the class head by which no query is kept."""
        from onnx import numpy_helper

        proto = copy.deepcopy(self.proto)
        (bias,) = (x for x in proto.graph.initializer if x.name.endswith("class_head.bias"))
        nothing = numpy_helper.to_array(bias).copy()
        nothing[-1] += 1000
        bias.CopyFrom(numpy_helper.from_array(nothing, bias.name))
        return Exported.of(self.model, proto)

    def run(self, image: torch.Tensor, output_size: tuple[int, int] | None = None) -> dict:
        """Outputs by their names, of a 3×H×W image."""
        feed = {"image": image[None].numpy()}
        if output_size is not None:
            feed["output_size"] = np.array(output_size, dtype=np.int64)
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(None, feed), strict=True))


@pytest.fixture(scope="session")
def export() -> Callable[[DETR, ExportOptions], Exported]:
    """Exports a model to ONNX, without metadata."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")

    def make(model: DETR, options: ExportOptions) -> Exported:
        program = trace(model, options)
        return Exported.of(model, to_onnx(program, Interface.of(options), {}), program)

    return make


@pytest.fixture(scope="session")
def tiny_weights(tiny_model, tmp_path_factory) -> Path:
    """A checkpoint of the tool's model."""
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save({"model": tiny_model(OF_THE_TOOL).state_dict()}, path)
    return path


@pytest.fixture(scope="session")
def run_tool(run_cli, tiny_cfg_of, tiny_weights, tmp_path_factory) -> Callable[..., None]:
    """Runs ``detr-d2 export`` on its tiny model: output, arguments, config keys and values."""

    def run(output: Path, *arguments: str, overrides: tuple = ()) -> None:
        config = tmp_path_factory.mktemp("config") / "config.yaml"
        cfg = tiny_cfg_of(OF_THE_TOOL, "MODEL.WEIGHTS", str(tiny_weights), *overrides)
        config.write_text(cfg.dump())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("detr_d2.export.model_export.build_model", _short_model)
            run_cli("export", "--config-file", config, "--output", output, *arguments)

    return run


@pytest.fixture(scope="session")
def exported_folder(run_tool, tmp_path_factory) -> Path:
    """What the tool leaves: ``files/tiny.onnx``, for any size, and ``models/`` for Triton."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("exported")
    run_tool(folder / "files" / "tiny.onnx", "--triton", str(folder / "models"))
    return folder


@pytest.fixture(scope="session")
def onnx_of(tiny_model, export, exported_folder) -> Callable[[str], Exported]:
    """ONNX for images of any size of "R50, reference", by the tool, and of "DC5, merged"."""
    onnx = pytest.importorskip("onnx")

    @functools.cache
    def get(name: str) -> Exported:
        model = tiny_model(name)
        if name == OF_THE_TOOL:
            return Exported.of(model, onnx.load(exported_folder / "files" / "tiny.onnx"))
        return export(model, ExportOptions())

    return get


@pytest.fixture
def plain_while_loop(monkeypatch) -> None:
    """``torch.while_loop`` as Python has it, which needn't compile anything."""

    def while_loop(condition: Callable, body: Callable, state: tuple) -> tuple:
        while condition(*state):
            state = body(*state)
        return state

    monkeypatch.setattr(torch, "while_loop", while_loop)

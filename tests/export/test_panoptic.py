"""The panoptic form: what its graph and its files make of images, beside PyTorch."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from detr_d2.export import ExportOptions
from detr_d2.export.model_graph import PanopticGraph
from detr_d2.export.triton import write_repository
from detr_d2.modeling import DETR
from detr_d2.modeling.inference import QuerySelection, select_panoptic_queries
from detr_d2.modeling.merging import merge_panoptic

# What is traced runs as it is for all; files are made of two, which have all parts between them.
MODELS = ("R50, reference", "R50, merged", "DC5, reference", "DC5, merged", "learned positions")
MODELS += ("pixel embedding",)
FILES = ("R50, reference", "DC5, merged", "pixel embedding")
OUTPUTS = ("ids", "classes", "scores", "areas", "boxes")
# Odd and even, up and down, thin and square.
INPUT_SIZES = [(97, 130), (64, 96), (75, 61), (128, 128), (50, 201), (161, 98)]
OUTPUT_SIZES = [(97, 130), (75, 61), (190, 203), (128, 128), (33, 90), (161, 99)]


def expect(
    model: DETR, image: torch.Tensor, size: tuple[int, int], top_k: int | None = None
) -> dict[str, np.ndarray]:
    """PyTorch's results in the exported form, where all queries compete or the best K alone."""
    (raw,) = model.raw_predictions([{"image": image, "height": size[0], "width": size[1]}])
    kept = select_panoptic_queries(raw.logits, model.options.panoptic.score_thresh)
    best = kept.scores.topk(min(len(kept), top_k or len(kept))).indices.sort().values
    kept = QuerySelection(kept.query_index[best], kept.classes[best], kept.scores[best])
    ids, segments = merge_panoptic(
        kept,
        raw.masks(kept.query_index),
        model.is_thing,
        raw.sizes,
        model.options.panoptic,
    )
    scores = raw.logits.softmax(-1).amax(-1)
    first = [max(s["queries"], key=lambda query: scores[query]) for s in segments]
    boxes = raw.boxes_cxcywh[first].reshape(-1, 4)
    centre, extent = boxes[:, :2], boxes[:, 2:]
    scale = torch.tensor([size[1], size[0]])
    corners = [(centre - extent / 2) * scale, (centre + extent / 2) * scale]
    return {
        "ids": ids.numpy(),
        "classes": np.array([s["category_id"] for s in segments]),
        "scores": np.array([s["score"] for s in segments]),
        "areas": np.array([s["area"] for s in segments]),
        "boxes": torch.cat([c.clamp(min=0).minimum(scale) for c in corners], dim=1).numpy(),
        "competing": np.array(len(kept)),
    }


@pytest.fixture
def agree(record_agreement) -> Callable[..., None]:
    """Compares results with those expected; ``what`` is their row in the table of shares."""

    def check(what: str, got: dict, expected: dict) -> None:
        assert got["ids"].dtype == np.int32 and got["ids"].shape == expected["ids"].shape
        record_agreement(what, float((got["ids"] == expected["ids"]).mean()))
        assert got["classes"].tolist() == expected["classes"].tolist()
        np.testing.assert_allclose(got["scores"], expected["scores"], atol=1e-4)
        np.testing.assert_allclose(got["boxes"], expected["boxes"], atol=0.02)
        np.testing.assert_array_equal(got["areas"], np.bincount(got["ids"].ravel())[1:])

    return check


def run_graph(graph: torch.nn.Module, image: torch.Tensor, size: tuple[int, int]) -> dict:
    with torch.no_grad():
        results = graph(image[None], torch.tensor(size))
    return {name: result.numpy() for name, result in zip(OUTPUTS, results, strict=True)}


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_equals_the_model(name, plain_while_loop, tiny_model, images, agree):
    model = tiny_model(name)
    graph = PanopticGraph(model)
    competing = segments = 0
    for image, output_size in zip(images(*INPUT_SIZES), OUTPUT_SIZES, strict=True):
        expected = expect(model, image, output_size)
        agree("graph in PyTorch", run_graph(graph, image, output_size), expected)
        competing += int(expected["competing"])
        segments += len(expected["classes"])
    assert competing > segments > 6  # some were merged or dropped


@pytest.mark.parametrize("top_k", [1, 3, 15])
def test_the_best_alone_compete(top_k, plain_while_loop, tiny_model, images, agree):
    model = tiny_model("DC5, merged")
    graph = PanopticGraph(model, top_k)
    fewer = 0
    for image in images((97, 130), (64, 96), seed=3):
        size = tuple(image.shape[1:])
        expected = expect(model, image, size, top_k)
        agree("graph, top k", run_graph(graph, image, size), expected)
        fewer += expected["competing"] < expect(model, image, size)["competing"]
    assert fewer or top_k == 15


@pytest.mark.parametrize("name", FILES)
def test_onnx_equals_the_model_at_every_size(name, onnx_of, images, agree):
    exported = onnx_of(name)
    for image, output_size in zip(images(*INPUT_SIZES), OUTPUT_SIZES, strict=True):
        agree(
            f"ONNX, {name}",
            exported.run(image, output_size),
            expect(exported.model, image, output_size),
        )


@pytest.mark.filterwarnings("ignore:No complete tensor found")  # see export_model
def test_a_program_of_torch_equals_the_model(onnx_of, images, agree):
    exported = onnx_of("DC5, merged")
    file = io.BytesIO()
    torch.export.save(exported.program, file)
    file.seek(0)
    (image,) = images((65, 98))
    got = run_graph(torch.export.load(file).module(), image, (70, 90))
    agree("torch.export", got, expect(exported.model, image, (70, 90)))


@pytest.mark.parametrize("name", FILES)
def test_nothing_kept(name, onnx_of, images):
    (image,) = images((97, 130))
    got = onnx_of(name).seeing_nothing().run(image, (40, 50))
    assert got["ids"].shape == (40, 50) and not got["ids"].any()
    assert [got[key].shape for key in ("classes", "scores", "areas")] == [(0,)] * 3
    assert got["boxes"].shape == (0, 4)


def test_a_size_known_beforehand_needs_no_other_input(tiny_model, export, images, agree, tmp_path):
    """With masks of all queries, of which not all compete here; and what Triton is told of it."""
    model = tiny_model("DC5, merged", "MODEL.DETR.TEST.SCORE_THRESH", 0.9)
    exported = export(model, ExportOptions(size=(65, 96), top_k=16))
    (image,) = images((65, 96))
    agree("ONNX, fixed size, top k", exported.run(image), expect(model, image, (65, 96)))
    assert [i.name for i in exported.session.get_inputs()] == ["image"]
    config = (write_repository(exported.proto, tmp_path, "tiny") / "config.pbtxt").read_text()
    assert '{ name: "image", data_type: TYPE_UINT8, dims: [ 1, 3, 65, 96 ] }' in config
    assert '{ name: "ids", data_type: TYPE_INT32, dims: [ 65, 96 ] }' in config
    assert '{ name: "boxes", data_type: TYPE_FP32, dims: [ -1, 4 ] }' in config


def test_files_are_clean(onnx_of):
    """Named axes, opset 18, and no word of the machine that they were made on."""
    onnx = pytest.importorskip("onnx")
    exported = onnx_of("DC5, merged")
    onnx.checker.check_model(exported.proto, full_check=True)
    assert {entry.domain: entry.version for entry in exported.proto.opset_import}[""] >= 18
    inputs = {i.name: i.shape for i in exported.session.get_inputs()}
    assert inputs == {"image": [1, 3, "height", "width"], "output_size": [2]}
    outputs = {o.name: o.shape for o in exported.session.get_outputs()}
    assert outputs == {
        "ids": ["output_height", "output_width"],
        "classes": ["segments"],
        "scores": ["segments"],
        "areas": ["segments"],
        "boxes": ["segments", 4],
    }
    assert "CastLike" not in {node.op_type for node in exported.proto.graph.node}
    content = exported.proto.SerializeToString()
    assert b".py" not in content and str(torch.__path__[0]).encode() not in content


def test_the_quickstarts_model(quickstart_weights, export, agree):
    from detectron2.data import DatasetCatalog

    from detr_d2 import config_file, load_config
    from detr_d2.data.image_file import read_image
    from detr_d2.engine.checkpointer import StrictCheckpointer

    cfg = load_config(config_file("shapes/detr_panoptic.yaml"), ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg).eval()
    StrictCheckpointer(model).load(str(quickstart_weights))
    exported = export(model, ExportOptions())
    for record in DatasetCatalog.get(cfg.DATASETS.TEST[0])[:10]:
        image = torch.from_numpy(read_image(record["file_name"], "RGB").copy()).permute(2, 0, 1)
        size = tuple(image.shape[1:])
        agree("ONNX, quickstart's model", exported.run(image, size), expect(model, image, size))

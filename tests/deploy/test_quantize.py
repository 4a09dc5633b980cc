"""Smaller variants: what becomes smaller, what stays exact, and what is refused."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from detr_d2.deploy import ModelError, OnnxPredictor
from detr_d2.deploy.eight_bits import to_int8
from detr_d2.deploy.half_precision import to_half
from detr_d2.deploy.quantize import kept_nodes, quantize

SIZES = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.INT8: 1, TensorProto.UINT8: 1}


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, feeds)


def operators(model: onnx.ModelProto) -> Counter:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("kind, width", [("int8", 1), ("fp16", 2)])
def test_a_variant_predicts_the_same_with_smaller_weights(
    make_model, stripes, tmp_path, kind, width
):
    path, output = make_model(), tmp_path / f"{kind}.onnx"
    quantize(path, output, kind)
    ids, segments = OnnxPredictor(path, image_format="RGB")(stripes)["panoptic_seg"]
    variant = OnnxPredictor(output, image_format="RGB")
    np.testing.assert_array_equal(variant(stripes)["panoptic_seg"][0], ids)
    assert variant(stripes)["panoptic_seg"][1] == segments
    assert variant.info == OnnxPredictor(path).info
    model = onnx.load(output)
    onnx.checker.check_model(model, full_check=True)
    assert [each.domain for each in model.opset_import] == [""]
    weights = {w.name: w for w in model.graph.initializer}
    (wide,) = (w for name, w in weights.items() if name.startswith("wide") and len(w.dims) == 4)
    (mixing,) = (w for name, w in weights.items() if name.startswith("mixing") and len(w.dims) == 2)
    assert SIZES[wide.data_type] == SIZES[mixing.data_type] == width
    # The head keeps its weights, whose own name doesn't tell whose they are.
    assert weights["rows_of_head"].data_type == TensorProto.FLOAT


def test_each_kind_calculates_in_its_own_types(make_model, tmp_path):
    path = make_model()
    for kind in ("int8", "fp16"):
        quantize(path, tmp_path / f"{kind}.onnx", kind)
    int8, fp16 = (operators(onnx.load(tmp_path / f"{kind}.onnx")) for kind in ("int8", "fp16"))
    assert int8["MatMulInteger"] == int8["MatMul"] == int8["DequantizeLinear"] == 1
    assert int8["Conv"] == 2 and int8["ConvInteger"] == 0
    assert fp16["Cast"] > operators(onnx.load(path))["Cast"] and fp16["DequantizeLinear"] == 0


def test_the_command(make_model, tmp_path, run_without_torch):
    module, output = "detr_d2.deploy.quantize", tmp_path / "small.onnx"
    result = run_without_torch(module, make_model(), output, "--to", "int8")
    assert (result.returncode, result.stderr) == (0, "")
    assert "small.onnx: 0.0 MB" in result.stdout and output.is_file()
    result = run_without_torch(module, output, tmp_path / "again.onnx", "--to", "fp16")
    assert result.returncode == 1 and "small.onnx: it is quantised already" in result.stderr


def test_other_files_are_refused(make_model, tmp_path):
    with pytest.raises(FileNotFoundError, match="none.onnx"):
        quantize(tmp_path / "none.onnx", tmp_path / "out.onnx", "int8")
    with pytest.raises(ModelError, match=r"foreign\.onnx: not a model of detr-d2 export"):
        quantize(make_model("foreign.onnx", metadata=None), tmp_path / "out.onnx", "int8")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ModelError, match=r"text\.onnx: onnxruntime cannot load"):
        quantize(tmp_path / "text.onnx", tmp_path / "out.onnx", "fp16")
    path = make_model()
    before = path.read_bytes()
    with pytest.raises(ValueError, match="replace the model"):
        quantize(path, path, "fp16")
    assert path.read_bytes() == before and not (tmp_path / "out.onnx").exists()


# A residual block with a shared weight, whose result a branch takes from around it.
BRANCHED = """
<ir_version: 8, opset_import: ["": 18]>
branched (float[1, 8, h, w] x, bool some) => (float[1, 8, h, w] y, float[1, 8, h, w] z)
<float[8, 8, 3, 3] weight, float[8, 8, 3, 3] kernel>
{
    a = Conv<pads=[1, 1, 1, 1]>(x, weight)
    b = Relu(a)
    c = Conv<pads=[1, 1, 1, 1]>(b, weight)
    d = Add(c, x)
    e = Relu(d)
    f = ConvTranspose<strides=[2, 2], pads=[0, 0, 1, 1]>(e, kernel)
    y = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(f)
    z = If(some) <then_branch = yes () => (float[1, 8, h, w] p) { p = Neg(e) },
                  else_branch = no () => (float[1, 8, h, w] q) { q = Neg(c) }>
}
"""


@pytest.fixture
def branched() -> onnx.ModelProto:
    model = onnx.parser.parse_model(BRANCHED)
    rng = np.random.default_rng(0)
    for name, shape in (("weight", (8, 8, 3, 3)), ("kernel", (8, 8, 3, 3))):
        values = rng.normal(0, 0.1, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    for number, node in enumerate(model.graph.node):
        node.name = f"node_{number}"
    return model


@pytest.mark.parametrize("convert, weight", [(to_half, 10), (to_int8, 3)])
@pytest.mark.parametrize("some", [True, False])
def test_results_stay_close(branched, convert, weight, some):
    x = np.random.default_rng(1).normal(size=(1, 8, 7, 9)).astype(np.float32)
    kept = branched.SerializeToString()
    small = convert(branched, set())
    assert branched.SerializeToString() == kept
    assert {w.data_type for w in small.graph.initializer if len(w.dims) == 4} == {weight}
    feeds = {"x": x, "some": np.array(some)}
    for value, expected in zip(run(small, **feeds), run(branched, **feeds), strict=True):
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, expected, atol=0.02)
        assert np.abs(value - expected).max() > 0  # it is another arithmetic


@pytest.mark.parametrize("convert", [to_half, to_int8])
def test_what_is_kept_stays_as_it_is(branched, convert):
    keep = {node.name for node in branched.graph.node}
    same = convert(branched, keep)
    assert {w.data_type for w in same.graph.initializer} == {TensorProto.FLOAT}
    x = np.random.default_rng(1).normal(size=(1, 8, 5, 5)).astype(np.float32)
    feeds = {"x": x, "some": np.array(True)}
    for value, expected in zip(run(same, **feeds), run(branched, **feeds), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_half_precision_casts_no_more_than_it_must(branched):
    assert operators(to_half(branched, set()))["Cast"] == 4  # x; c and e for branches; y


def test_kept_nodes_are_those_of_the_heads(make_model):
    model = onnx.load(make_model())
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
    kept = kept_nodes(model)
    assert sorted(name.split("_")[0] for name in kept) == ["Add", "MatMul"]

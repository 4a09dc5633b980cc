"""A graph with weights in 8-bit integers: a quarter of the size.

Matrix products with weights calculate in integers; their inputs are quantised dynamically. Weights
of convolutions are only stored in 8 bits, with a scale for each channel: dynamically quantised
convolutions take longer than float32 ones, and lose more accuracy.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from detr_d2.deploy.graph_nodes import in_order

# The axis of the weight that counts its output channels.
_CONVOLUTIONS = {"Conv": 0, "ConvTranspose": 1}
# Weights with fewer elements stay in float32, since they take little space.
_MIN_ELEMENTS = 512


def to_int8(model: onnx.ModelProto, keep: set[str]) -> onnx.ModelProto:
    """Quantises weights; inputs and outputs of the model keep their types.

    Args:
        model: isn't changed.
        keep: names of nodes whose weights stay in float32.

    Returns:
        A new model. Nodes inside of loops and branches stay as they are.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        # quantize_dynamic warns on the root logger that constants should be folded, which they are.
        disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            quantize_dynamic(
                model,
                path,
                op_types_to_quantize=["MatMul"],
                weight_type=QuantType.QUInt8,
                nodes_to_exclude=sorted(keep),
            )
        finally:
            logging.disable(disabled)
        quantized = onnx.load(path)
    _store_convolutions(quantized.graph, keep)
    return quantized


def _store_convolutions(graph: onnx.GraphProto, keep: set[str]) -> None:
    """Replaces the weights of convolutions by integers, and nodes that bring them back."""
    weights = {w.name: w for w in graph.initializer if w.data_type == TensorProto.FLOAT}
    nodes, stored = [], {}
    for node in graph.node:
        name = node.input[1] if node.op_type in _CONVOLUTIONS else ""
        if name in weights and name not in stored and node.name not in keep:
            values = numpy_helper.to_array(weights[name])
            if values.size >= _MIN_ELEMENTS:
                axis = _CONVOLUTIONS[node.op_type]
                stored[name] = _quantized(values, axis, name)
                inputs = [tensor.name for tensor in stored[name]]
                nodes.append(
                    helper.make_node(
                        "DequantizeLinear", inputs, [name], name=f"{name}_restored", axis=axis
                    )
                )
        nodes.append(node)
    left = [w for w in graph.initializer if w.name not in stored]
    new = [tensor for pair in stored.values() for tensor in pair]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(in_order(nodes))  # quantize_dynamic ignores the inputs of loops
    graph.initializer.extend([*left, *new])


def _quantized(values: np.ndarray, axis: int, name: str) -> list[onnx.TensorProto]:
    """Returns 8-bit integers, and a scale for each channel along an axis."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    scale = np.maximum(np.abs(values).max(others, keepdims=True) / 127, np.float32(1e-12))
    integers = np.round(values / scale).astype(np.int8)
    return [
        numpy_helper.from_array(integers, f"{name}_int8"),
        numpy_helper.from_array(scale.astype(np.float32).ravel(), f"{name}_scale"),
    ]

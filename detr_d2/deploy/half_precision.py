"""A graph whose convolutions and matrix products calculate in float16, and nothing else does.

Positions, boxes, scores, upsampling and merging stay in float32, since rounding would change them.

onnxruntime has a converter of its own (onnxruntime.transformers.float16, version 1.32). On exported
graphs it puts casts behind the nodes that read them, which ONNX forbids. With nodes sorted, its
graphs change four times as many pixels; when all but convolutions and matrix products is kept in
float32, the merging loop gets tensors of both types and cannot be loaded.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from detr_d2.deploy.graph_nodes import inputs_of

# Operators with most of the arithmetic. Those between them join where one of their inputs is
# float16 already, which saves casts; all inputs of these operators have one type.
_ARITHMETIC = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_BETWEEN = {"Add", "MaxPool", "Relu"}
_SUFFIX = "__float16"


def to_half(model: onnx.ModelProto, keep: set[str]) -> onnx.ModelProto:
    """Converts weights and arithmetic; inputs and outputs of the model keep their types.

    Args:
        model: isn't changed.
        keep: names of nodes that stay in float32.

    Returns:
        A new model. Nodes inside of loops and branches stay as they are.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    rewriting = _Rewriting(graph, keep)
    nodes = [new for node in graph.node for new in rewriting.nodes_for(node)]
    del graph.node[:]
    graph.node.extend(nodes)
    # The listed types of inner tensors are wrong now. They are optional.
    del graph.value_info[:]
    used = {name for node in nodes for name in inputs_of(node)} | {o.name for o in graph.output}
    weights = [w for w in graph.initializer if w.name in used] + rewriting.new_weights
    del graph.initializer[:]
    graph.initializer.extend(weights)
    return half


class _Rewriting:
    """Goes through the nodes of a graph, in their order."""

    def __init__(self, graph: onnx.GraphProto, keep: set[str]) -> None:
        self._weights = {w.name: w for w in graph.initializer if w.data_type == TensorProto.FLOAT}
        # Names of the float16 tensors that earlier nodes have made.
        self._halves: set[str] = set()
        self.new_weights: list[onnx.TensorProto] = []
        # The first outputs of nodes that change, and the tensors that other nodes read.
        self._changing: set[str] = set()
        self._read = {output.name for output in graph.output}
        for node in graph.node:
            joins = node.op_type in _BETWEEN and self._changing.intersection(node.input)
            if node.name not in keep and (node.op_type in _ARITHMETIC or joins):
                self._changing.add(node.output[0])
            else:
                self._read.update(inputs_of(node))

    def nodes_for(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Returns the node as it is, or in float16 with the casts that it needs."""
        if not self._changing.intersection(node.output):
            return [node]
        casts = [new for name in node.input if name for new in self._provide(name)]
        new = onnx.NodeProto()
        new.CopyFrom(node)
        new.input[:] = [name + _SUFFIX if name else "" for name in node.input]
        name = node.output[0]  # the others are optional indices of MaxPool
        new.output[0] = name + _SUFFIX
        self._halves.add(new.output[0])
        back = [_cast(new.output[0], name, TensorProto.FLOAT)] if name in self._read else []
        return [*casts, new, *back]

    def _provide(self, name: str) -> list[onnx.NodeProto]:
        """Returns nodes that make a tensor in float16, or none if there is one already."""
        half = name + _SUFFIX
        if half in self._halves:
            return []
        self._halves.add(half)
        if name not in self._weights:
            return [_cast(name, half, TensorProto.FLOAT16)]
        values = numpy_helper.to_array(self._weights[name])
        largest = np.finfo(np.float16).max
        values = values.clip(-largest, largest).astype(np.float16)
        self.new_weights.append(numpy_helper.from_array(values, half))
        return []


def _cast(name: str, output: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [output], name=f"cast_{output}_{to}", to=to)

"""A traced program as an ONNX model."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.export import ExportedProgram

from detr_d2.export.graph_metadata import METADATA_KEY
from detr_d2.export.traced_program import Interface

if TYPE_CHECKING:
    import onnx
    import onnx_ir

OPSET = 18


def to_onnx(program: ExportedProgram, interface: Interface, metadata: dict) -> onnx.ModelProto:
    """Translates a program, and checks the result.

    Args:
        program: a traced program.
        interface: names and axes of its inputs and outputs.
        metadata: metadata of the model, see ``describe``.

    Returns:
        The model with its weights.
    """
    import onnx
    import onnx_ir

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, optimize=False, verbose=False
        )
    assert exported is not None  # only the exporter without dynamo gives None
    model = exported.model
    _simplify(model)
    _name(model.graph.inputs, interface.inputs)
    _name(model.graph.outputs, interface.outputs)
    _forget_sources(model)
    model.metadata_props[METADATA_KEY] = json.dumps(metadata)
    proto = onnx_ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _simplify(model: onnx_ir.Model) -> None:
    """Folds constants and removes unused operations.

    The exporter's own optimisation also tries hundreds of patterns on each operation, which takes
    a third of the whole time. Runtimes have patterns of their own.
    """
    from onnx_ir.passes.common import ShapeInferencePass
    from onnxscript import optimizer

    log = logging.getLogger("onnxscript")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of constants that it doesn't fold
    try:
        optimizer.inline(model)
        optimizer.fold_constants(model)
        ShapeInferencePass()(model)  # known types make more casts removable
        optimizer.fold_constants(model)
        optimizer.remove_unused_nodes(model)
    finally:
        log.setLevel(level)


def _name(values: Sequence[onnx_ir.Value], axes: dict[str, tuple]) -> None:
    import onnx_ir

    for value, (name, shape) in zip(values, axes.items(), strict=True):
        value.name = name
        assert value.shape is not None  # as it is in every program of torch.export
        known = zip(value.shape, shape, strict=True)
        value.shape = onnx_ir.Shape([a if isinstance(a, int) else b for a, b in known])


def _forget_sources(model: onnx_ir.Model) -> None:
    """Removes the exporter's notes on the origin of operations, a tenth of the file."""
    graphs: list[onnx_ir.Graph | onnx_ir.Function] = [model.graph, *model.functions.values()]
    for graph in graphs:
        graph.metadata_props.clear()
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.metadata_props.clear()

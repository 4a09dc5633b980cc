"""A model as a program of torch.export: the form from which all files are made.

Axes: B images, H×W the network's input, H'×W' the output.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import fx
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic_config

from detr_d2.export.export_options import ExportOptions, check_exportable
from detr_d2.export.model_graph import PanopticGraph, RawGraph
from detr_d2.modeling import DETR

# Size of the image with which graphs of any size are traced. It doesn't change the program.
EXAMPLE_SIZE = (97, 130)


@dataclass(frozen=True)
class Interface:
    """Names of a graph's inputs and outputs, each with its axes: names, or numbers if fixed."""

    inputs: dict[str, tuple]
    outputs: dict[str, tuple]

    @classmethod
    def of(cls, options: ExportOptions) -> Interface:
        """Returns the interface of a graph with these options."""
        fixed = options.size is not None
        size = options.size or ("height", "width")
        if options.form == "raw":
            batch = 1 if fixed else "batch"
            return cls(
                inputs={"image": (batch, 3, *size)},
                outputs={
                    "logits": (batch, "queries", "classes_and_none"),
                    "boxes_cxcywh": (batch, "queries", 4),
                    "mask_logits": (batch, "masks", "mask_height", "mask_width"),
                    "query_index": (batch, "masks"),
                },
            )
        inputs = {"image": (1, 3, *size)}
        if not fixed:
            inputs["output_size"] = (2,)
        return cls(
            inputs=inputs,
            outputs={
                "ids": size if fixed else ("output_height", "output_width"),
                "classes": ("segments",),
                "scores": ("segments",),
                "areas": ("segments",),
                "boxes": ("segments", 4),
            },
        )


def trace(model: DETR, options: ExportOptions) -> ExportedProgram:
    """Traces a model from pixels to results.

    Args:
        model: with masks; on a CPU.
        options: options of the export.

    Returns:
        The program, with inputs and outputs in the order of ``Interface.of(options)``. It holds no
        paths of this machine.

    Raises:
        ValueError: the model has no masks, or see ``check_exportable``.
    """
    check_exportable(model)
    graph_type = PanopticGraph if options.form == "panoptic" else RawGraph
    graph = graph_type(model, options.top_k).eval()
    fixed = options.size is not None
    batch = 1 if fixed or options.form == "panoptic" else 2
    image = torch.zeros(batch, 3, *(options.size or EXAMPLE_SIZE), dtype=torch.uint8)
    inputs: tuple = (image,)
    any_size: dict = {} if fixed else {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    if batch > 1:
        any_size[0] = Dim.DYNAMIC
    shapes: tuple = (any_size or None,)
    if options.form == "panoptic" and not fixed:
        inputs, shapes = (image, torch.tensor(EXAMPLE_SIZE)), (any_size, None)
    # Earlier compilations, also of other models, confuse PyTorch's tracing of loops.
    torch.compiler.reset()
    with torch.no_grad(), _any_size_alike():
        program = torch.export.export(graph, inputs, dynamic_shapes=shapes, strict=False)
    _forget_sources(program)
    return program


@contextmanager
def _any_size_alike() -> Iterator[None]:
    """Keeps memory layouts, which programs check, independent of the example's size."""
    # PyTorch gives this module its ``patch`` when it is imported.
    with symbolic_config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        yield


def _forget_sources(program: ExportedProgram) -> None:
    """Removes the paths of source files on this machine from all operations."""
    for module in program.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)

"""Finds the dependencies between the nodes of an ONNX graph, including loops and branches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter

import onnx


def inputs_of(node: onnx.NodeProto) -> Iterator[str]:
    """Yields all that a node reads, including what its loops and branches read from outside."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from inputs_of(inner)
            yield from (output.name for output in graph.output)


def in_order(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Returns the nodes, each after those whose outputs it reads."""
    nodes = list(nodes)
    maker = {name: place for place, node in enumerate(nodes) for name in node.output}
    needs = {
        place: {maker[name] for name in inputs_of(node) if name in maker}
        for place, node in enumerate(nodes)
    }
    return [nodes[place] for place in TopologicalSorter(needs).static_order()]

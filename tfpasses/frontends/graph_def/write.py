"""Writing a graph as a GraphDef: a node that nobody touched leaves as the NodeDef it came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfpasses.frontends.graph_def.read import Source
from tfpasses.graph import Graph, Node, Ref, UnsupportedModelError

__all__ = ["MOST_BYTES", "to_graph_def"]

MOST_BYTES = (1 << 31) - 1
"""What a protocol buffer can hold."""


def to_graph_def(graph: Graph) -> Any:
    """A new `tf.compat.v1.GraphDef` that computes this graph, nodes in the graph's order; versions and functions as they were read.

    Raises `UnsupportedModelError` for a graph that was not read from a GraphDef, for a canonical node that stands for no NodeDef, and
    beyond the 2 GB that a GraphDef can hold.
    """
    if not isinstance(graph.source, Source):
        raise UnsupportedModelError(f"graph {graph.name} was not read from a GraphDef")
    size = sum(array.nbytes for array in graph.weights.values())
    if size > MOST_BYTES:
        raise UnsupportedModelError(f"graph {graph.name}: its constants take {size} bytes; a GraphDef holds at most {MOST_BYTES}")
    read, source = graph.source.nodes, graph.source.definition
    definition = tf.compat.v1.GraphDef()
    for field in ("versions", "library"):
        if source.HasField(field):
            getattr(definition, field).CopyFrom(getattr(source, field))
    gone = read.keys() - graph.nodes.keys()
    for name, node in graph.nodes.items():
        as_read = read.get(name) is node and not (gone and any(text[1:] in gone for text in source_of(node).input if text[:1] == "^"))
        definition.node.append(source_of(node) if as_read else changed(node, read, graph))
    return definition


def source_of(node: Node) -> Any:
    """The NodeDef that a node was read from."""
    assert node.owner is not None
    return node.owner.source


def changed(node: Node, read: Mapping[str, Node], graph: Graph) -> Any:
    """The NodeDef of a node that is not as it was read: its inputs, its constant, or a node that it waited for is gone."""
    was = read.get(node.name)
    if was is None or (node.op, node.config) != (was.op, was.config):
        raise UnsupportedModelError(f"node {node.name}: {node.op} cannot be written as a TensorFlow operation")
    source = source_of(was)
    new = type(source)()
    new.CopyFrom(source)
    control = [text for text in source.input if text[:1] == "^" and text[1:] in graph.nodes]
    del new.input[:]
    new.input.extend([*map(input_name, node.inputs), *control])
    if node.op == "Const":
        new.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(graph.weights[node.params["value"]]))
    return new


def input_name(ref: Ref) -> str:
    """A value as NodeDefs name it."""
    return ref.node if ref.index == 0 else f"{ref.node}:{ref.index}"

"""Canonical nodes as NodeDefs: those that passes make, and those that they change beyond what their sources can express."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tfpasses.frontends.graph_def.protos.node_defs import binary, identity
from tfpasses.frontends.lowering import LOWERING, lower
from tfpasses.graph import Graph, Node, UnsupportedModelError

__all__ = ["lowered"]

PLAIN: Mapping[str, str] = {"Add": "AddV2", "Subtract": "Sub", "Multiply": "Mul", "Maximum": "Maximum", "Minimum": "Minimum"}
"""Canonical operations of two inputs -> TensorFlow's."""
PAIR = 2


def lowered(node: Node, graph: Graph, names: list[str], params: Mapping[str, str], fresh: Callable[[str], str]) -> list[Any]:
    """The NodeDefs that compute a canonical node; the last bears its name. `names` are those of the values that it reads, `params` those of
    the nodes that give its parameters.

    Raises `UnsupportedModelError` for an operation that has no lowering.
    """
    if node.op not in LOWERING or len(node.specs) != 1:
        raise UnsupportedModelError(f"node {node.name}: {node.op} cannot be written as TensorFlow operations")
    dtype = node.specs[0].dtype
    if {graph.spec(ref).dtype for ref in node.inputs} == {dtype}:
        if node.op == "Identity":
            return [identity(node.name, names[0], dtype)]
        if node.op in PLAIN and len(names) == PAIR:
            return [binary(node.name, PLAIN[node.op], names[0], names[1], dtype)]
    return traced(node, graph, [*names, *params.values()], fresh)


def traced(node: Node, graph: Graph, names: list[str], fresh: Callable[[str], str]) -> list[Any]:
    """The NodeDefs of the lowering that the evaluator runs too; `names` are the values of the node's inputs, then of its parameters."""
    dtype = node.specs[0].dtype
    with tf.Graph().as_default() as inner:
        inputs = [tf.compat.v1.placeholder(spec.dtype, spec.shape) for spec in map(graph.spec, node.inputs)]
        params = {slot: tf.compat.v1.placeholder(array.dtype, array.shape) for slot, array in graph.params(node).items()}
        given = dict(zip([tensor.op.name for tensor in (*inputs, *params.values())], names, strict=True))
        if node.op != "BatchNorm":  # which computes in its parameters' dtype
            params = {slot: tf.cast(value, dtype) for slot, value in params.items()}
        value = tf.cast(lower(node, [tf.cast(x, dtype) for x in inputs], params), dtype)
        last = tf.identity(value).op.name if value.op.name in given else value.op.name
        definition = inner.as_graph_def()
    names_of = given | {one.name: fresh(f"{node.name}/{one.name}") for one in definition.node if one.name not in given and one.name != last}
    names_of[last] = node.name
    made = [one for one in definition.node if one.name not in given]
    made.sort(key=lambda one: one.name == last)
    for one in made:
        one.name = names_of[one.name]
        texts = [renamed(text, names_of) for text in one.input]
        del one.input[:]
        one.input.extend(texts)
    return made


def renamed(text: str, names: Mapping[str, str]) -> str:
    """An input `node`, `node:1` or `^node` by another name."""
    sign = text[:1] if text[:1] == "^" else ""
    node, colon, index = text[len(sign) :].partition(":")
    return f"{sign}{names[node]}{colon}{index}"

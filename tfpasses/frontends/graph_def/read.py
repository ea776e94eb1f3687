"""Reading a GraphDef: every NodeDef becomes a node, in an order in which producers come first; constants become weights.

Operations keep their names with the prefix `tf.` and are opaque; `Placeholder` is an `Input`, `Const` a `Const`, a variable's handle a
`Variable`. A node's `owner.source` is its NodeDef, which also holds its control inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, Protocol

import attrs
import numpy as np
import tensorflow as tf

from tfpasses.frontends.graph_def.attributes import Attributes
from tfpasses.frontends.graph_def.specs import output_specs
from tfpasses.graph import Array, Graph, GraphError, Node, Owner, Ref, Slot, Spec
from tfpasses.graph.order import sort_keys

__all__ = ["Container", "Source", "Variable", "from_graph_def"]

NOT_RESULTS = frozenset({"Input", "Const", "Variable", "tf.NoOp", "tf.Assert", "tf.SaveV2", "tf.RestoreV2"})
"""What nothing reads without being a result."""


@attrs.frozen(eq=False)
class Variable:
    """A variable that nodes of a GraphDef read."""

    name: str
    """Its key among the graph's weights."""
    value: Array
    trainable: bool = True


@attrs.frozen(eq=False)
class Source:
    """What a graph was read from."""

    definition: Any
    """The GraphDef."""
    nodes: Mapping[str, Node]
    """Its nodes as they were read."""
    arrays: dict[str, Array]
    """Every constant and variable as it was read, by its key among the weights."""
    variables: Mapping[str, Variable]
    """By the name of the node that is its handle."""
    container: Container | None = None
    """What the GraphDef lay in; None where it came alone."""


class Container(Protocol):
    """What holds a GraphDef with its variables: a function, a SavedModel, a session."""

    def rebuilt(self, written: Any) -> Any:
        """A new one of the same kind, around what `write` gave."""
        ...


def from_graph_def(
    definition: Any,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    name: str = "graph_def",
    variables: Mapping[str, Variable] | None = None,
    container: Container | None = None,
) -> Graph:
    """Read a `tf.compat.v1.GraphDef`. Nothing is changed; large constants are not copied.

    `inputs` are names of placeholders, without them all, in order. `outputs` are values (`node`, `node:1`); without them those of
    `Identity`, `Identity_1`, .. as TensorFlow names the results of a function, or of the one node that nothing reads. `variables` are
    those that are known, by the names of their handles.

    Raises `GraphError`, one line, where a name is missing or taken twice, an input does not exist, the nodes form a cycle, or the outputs
    must be named.
    """
    definitions: dict[str, Any] = {}
    for one in definition.node:
        if not one.name or one.name in definitions:
            raise GraphError(f"two nodes are named {one.name}" if one.name else f"a node of operation {one.op or '(none)'} has no name")
        definitions[one.name] = one
    refs = {node: [ref_of(node, text, definitions) for text in one.input if text[:1] != "^"] for node, one in definitions.items()}
    for node, one in definitions.items():
        for text in one.input:
            if text[:1] == "^" and text[1:] not in definitions:
                raise GraphError(f"node {node}: its control input {text} does not exist")
    functions = {function.signature.name: function for function in definition.library.function}
    handles = dict(variables or {})
    counts = least_outputs(refs.values())
    nodes: dict[str, Node] = {}
    weights: dict[str, Array] = {}
    for node in sort_keys(definitions, lambda key: [ref.node for ref in refs[key]]):
        one = definitions[node]
        known = [nodes[ref.node].specs[ref.index] for ref in refs[node]]
        specs = output_specs(one, known, partial(element_of, refs[node], nodes, weights), functions)
        if specs is None:
            specs = (Spec(None, "unknown"),) * max(counts.get(node, 1), 1)
        if counts.get(node, 0) > len(specs):
            raise GraphError(f"node {node}: output {counts[node] - 1} is read, {one.op} gives {len(specs)}")
        owner = Owner(node, 0, one)
        if node in handles:
            weights[handles[node].name] = handles[node].value
            nodes[node] = Node(node, "Variable", tuple(refs[node]), {"weight": handles[node].name}, specs=specs, owner=owner)
        elif one.op == "Const":
            weights[node] = array_of(one)
            nodes[node] = Node(node, "Const", (), params={"value": node}, specs=specs, owner=owner)
        elif one.op == "Placeholder":
            nodes[node] = Node(node, "Input", (), specs=specs, owner=owner)
        else:
            nodes[node] = Node(node, f"tf.{one.op}", tuple(refs[node]), Attributes(one), specs=specs, owner=owner)
    fed = list(inputs) if inputs is not None else [node.name for node in nodes.values() if node.op == "Input"]
    for node in fed:
        if node not in nodes or nodes[node].op != "Input":
            raise GraphError(f"input {node}: {'it is no placeholder' if node in nodes else 'there is no such node'}")
    read = {text.lstrip("^").partition(":")[0] for one in definition.node for text in one.input}
    results = guess_outputs(nodes, read) if outputs is None else [result_of(text, nodes) for text in outputs]
    return Graph(
        nodes,
        weights,
        tuple(fed),
        tuple(results),
        input_structure=[Slot(index) for index in range(len(fed))],
        output_structure=[Slot(index) for index in range(len(results))],
        output_names=tuple(map(str, results)),
        name=name,
        source=Source(definition, nodes, dict(weights), handles, container),
    )


def ref_of(user: str, text: str, definitions: Mapping[str, Any]) -> Ref:
    """`node` or `node:1` as a reference to a value."""
    node, colon, index = text.partition(":")
    if node not in definitions:
        raise GraphError(f"node {user}: its input {text} does not exist")
    if not colon:
        return Ref(node)
    if not index.isdecimal():
        raise GraphError(f"node {user}: its input {text} names no output; write node:0")
    return Ref(node, int(index))


def least_outputs(refs: Iterable[Sequence[Ref]]) -> dict[str, int]:
    """How many outputs each node must have for all that is read of it."""
    counts: dict[str, int] = {}
    for row in refs:
        for node, index in row:
            if index >= counts.get(node, 0):
                counts[node] = index + 1
    return counts


def array_of(node: Any) -> Array:
    """The value of a constant, read-only. One that is stored as bytes is not copied."""
    tensor = node.attr["value"].tensor
    try:
        if tensor.tensor_content and tensor.dtype not in (tf.string.as_datatype_enum, tf.resource.as_datatype_enum):
            flat = np.frombuffer(tensor.tensor_content, tf.as_dtype(tensor.dtype).as_numpy_dtype)
            array: Array = flat.reshape([dim.size for dim in tensor.tensor_shape.dim])
        else:
            size = int(np.prod([dim.size for dim in tensor.tensor_shape.dim], dtype=object)) if tensor.tensor_shape.dim else 1
            if size > MOST_REPEATED and size > tensor.ByteSize():
                raise ValueError(f"{size} elements in {tensor.ByteSize()} bytes")
            array = tf.make_ndarray(tensor)
    except (TypeError, ValueError) as error:
        raise GraphError(f"node {node.name}: its constant cannot be read ({' '.join(str(error).split())})") from error
    array.setflags(write=False)
    return array


def element_of(inputs: Sequence[Ref], nodes: Mapping[str, Node], weights: Mapping[str, Array], place: int) -> Any:
    """The elements of one of a node's inputs."""
    return elements(inputs[place], nodes, weights)


def elements(ref: Ref, nodes: Mapping[str, Node], weights: Mapping[str, Array], depth: int = 8) -> Any:
    """The elements of a small value, as far as they are known before the graph is run; see `Values`."""
    node = nodes[ref.node]
    if depth == 0:
        return None
    if node.op == "Const" and weights[node.name].size <= SMALL:
        return weights[node.name].tolist()
    if node.op in ("tf.Identity", "tf.Cast"):
        return elements(node.inputs[0], nodes, weights, depth - 1)
    if node.op == "tf.Pack" and len(node.inputs) <= SMALL:
        return [elements(part, nodes, weights, depth // 2) for part in node.inputs]
    return None


SMALL = 64
MOST_REPEATED = 1 << 24
"""A constant may be stored as one element for all: up to so many."""


def guess_outputs(nodes: Mapping[str, Node], read: AbstractSet[str]) -> list[Ref]:
    """The values of the Identities that TensorFlow puts behind a function's results; without such, of the only node that nothing reads."""
    ends = [node for node in nodes.values() if node.name not in read and node.specs and node.op not in NOT_RESULTS]
    named = [node for node in ends if node.op == "tf.Identity" and node.name.partition("_")[0] == "Identity"]
    if named:
        named.sort(key=lambda node: int(node.name.partition("_")[2] or 0) if node.name.partition("_")[2].isdecimal() else 0)
    elif len(ends) > 1:
        raise GraphError(
            f"several nodes could be the outputs; name them: {', '.join(node.name for node in ends[:8])}{' ..' * (len(ends) > 8)}"
        )
    return [Ref(node.name, index) for node in (named or ends) for index in range(len(node.specs))]


def result_of(text: str, nodes: Mapping[str, Node]) -> Ref:
    """An output as the caller named it."""
    node, _, index = text.partition(":")
    if node not in nodes or not (index or "0").isdecimal() or int(index or 0) >= len(nodes[node].specs):
        raise GraphError(f"output {text}: there is no such value")
    return Ref(node, int(index or 0))

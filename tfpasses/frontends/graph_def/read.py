"""Reading a GraphDef: every NodeDef becomes a node, in an order in which producers come first; constants become weights.

Operations keep their names with the prefix `tf.` and are opaque; `Placeholder` is an `Input`, `Const` a `Const`, a variable's handle a
`Variable`. A node's `owner.source` is its NodeDef, which also holds its control inputs.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import attrs

from tfpasses.frontends.graph_def.attributes import Attributes, dtype_name
from tfpasses.frontends.graph_def.constants import array_of
from tfpasses.frontends.graph_def.elements import PASSED_ON, elements_after, elements_of
from tfpasses.frontends.graph_def.room import Room
from tfpasses.frontends.graph_def.specs import one_spec, output_specs
from tfpasses.frontends.graph_def.wiring import Wiring, by_name, check_name, wired
from tfpasses.graph import Array, Graph, GraphError, Node, Owner, Ref, Slot, Spec
from tfpasses.graph.node import EMPTY

__all__ = ["Container", "Source", "Variable", "from_graph_def"]

NOT_RESULTS = frozenset({"Input", "Const", "Variable", "tf.NoOp", "tf.Assert", "tf.SaveV2", "tf.RestoreV2"})
"""What nothing reads without being a result."""
FEW, OUTPUT_BYTES = 64, 64
"""Outputs of a node are counted beyond so many, each as so many bytes (which its text takes too)."""


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
    handles = dict(variables or {})
    with collector_paused():
        wiring = wired(by_name(definition.node))
        nodes, weights = read_nodes(wiring, {function.signature.name: function for function in definition.library.function}, handles)
    fed = list(inputs) if inputs is not None else [node.name for node in nodes.values() if node.op == "Input"]
    for node in fed:
        if node not in nodes or nodes[node].op != "Input":
            raise GraphError(f"input {node}: {'it is no placeholder' if node in nodes else 'there is no such node'}")
    results = guess_outputs(nodes, wiring.read) if outputs is None else [result_of(text, nodes) for text in outputs]
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


@contextmanager
def collector_paused() -> Iterator[None]:
    """A graph is many small objects that all stay: to look for garbage among them takes longer than to make them."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def read_nodes(wiring: Wiring, functions: Mapping[str, Any], handles: Mapping[str, Variable]) -> tuple[dict[str, Node], dict[str, Array]]:
    """The nodes, producers first, and the weights."""
    nodes: dict[str, Node] = {}
    weights: dict[str, Array] = {}
    elements: dict[str, Any] = {}
    kinds: dict[str, str] = {}
    room = Room()
    for node, row in wiring.refs.items():
        one = wiring.definitions[node]
        op = one.op
        owner = Owner(node, 0, one)
        if op == "Const":
            weights[node] = array = array_of(one, room)
            specs: tuple[Spec, ...] = one_spec(array.shape, dtype_name(one.attr["dtype"].type))
            elements[node] = elements_of(array)
            nodes[node] = Node(node, "Const", (), EMPTY, {"value": node}, specs, None, owner)
            continue
        kind = kinds.get(op)
        if kind is None:
            check_name(op, f"the operation of node {node}")
            kinds[op] = kind = f"tf.{op}"
        try:
            known = [nodes[producer].specs[index] for producer, index in row]
        except IndexError:
            raise missing_output(row, nodes, wiring) from None
        told = output_specs(one, known, partial(element_of, row, elements), functions)
        specs = one_spec(None, "unknown") * max(wiring.counts.get(node, 1), 1) if told is None else told
        if len(specs) > FEW and not room.take(len(specs) * OUTPUT_BYTES):
            raise GraphError(f"node {node}: {len(specs)} outputs are more than all that the graph holds; the file may be corrupted")
        if node in handles:
            weights[handles[node].name] = handles[node].value
            nodes[node] = Node(node, "Variable", row, {"weight": handles[node].name}, EMPTY, specs, None, owner)
        elif op == "Placeholder":
            nodes[node] = Node(node, "Input", (), EMPTY, EMPTY, specs, None, owner)
        else:
            nodes[node] = Node(node, kind, row, Attributes(one), EMPTY, specs, None, owner)
            if op in PASSED_ON:
                elements[node] = elements_after(one, row, elements)
    return nodes, weights


def missing_output(row: Sequence[Ref], nodes: Mapping[str, Node], wiring: Wiring) -> GraphError:
    """The error of a node that reads more outputs than there are."""
    node, index = next(ref for ref in row if ref.index >= len(nodes[ref.node].specs))
    return GraphError(f"node {node}: output {index} is read, {wiring.definitions[node].op} gives {len(nodes[node].specs)}")


def element_of(inputs: Sequence[Ref], elements: Mapping[str, Any], place: int) -> Any:
    """The elements of one of a node's inputs."""
    return elements.get(inputs[place].node)


def guess_outputs(nodes: Mapping[str, Node], read: AbstractSet[str]) -> list[Ref]:
    """The values of the Identities that TensorFlow puts behind a function's results; without such, of the only node that nothing reads."""
    loose = [nodes[name] for name in nodes if name not in read]
    ends = [node for node in loose if node.specs and node.op not in NOT_RESULTS]
    named = [node for node in ends if node.op == "tf.Identity" and node.name.partition("_")[0] == "Identity"]
    if named:
        named.sort(key=lambda node: place_of(node.name))
    elif len(ends) > 1:
        raise GraphError(
            f"several nodes could be the outputs; name them: {', '.join(node.name for node in ends[:8])}{' ..' * (len(ends) > 8)}"
        )
    return [Ref(node.name, index) for node in (named or ends) for index in range(len(node.specs))]


def place_of(name: str) -> int:
    """The number of a result: 0 of `Identity`, 3 of `Identity_3`."""
    number = name.partition("_")[2]
    return int(number) if number.isdecimal() and len(number) < MOST_DIGITS else 0


MOST_DIGITS = 10


def result_of(text: str, nodes: Mapping[str, Node]) -> Ref:
    """An output as the caller named it."""
    node, _, index = text.partition(":")
    place = next((place for place in range(len(nodes[node].specs)) if str(place) == (index or "0")), None) if node in nodes else None
    if place is None:
        raise GraphError(f"output {text}: there is no such value")
    return Ref(node, place)

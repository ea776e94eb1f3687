"""NodeDefs as nodes, in an order in which producers come first; constants become weights."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import attrs
import numpy as np

from tfpasses.frontends.graph_def.protos.attributes import Attributes, Dims
from tfpasses.frontends.graph_def.reading.constants import constant
from tfpasses.frontends.graph_def.reading.elements import PASSED_ON, elements_after, elements_of
from tfpasses.frontends.graph_def.reading.loop_specs import loop_node
from tfpasses.frontends.graph_def.reading.loops import ENTERS, EXITS, MERGES, NEXTS, Awaiting, Loop, Refs
from tfpasses.frontends.graph_def.reading.room import Room
from tfpasses.frontends.graph_def.reading.specs import narrowed, one_spec, output_specs
from tfpasses.frontends.graph_def.reading.wiring import Wiring, check_name
from tfpasses.graph import Array, GraphError, Node, Owner, Ref, Spec
from tfpasses.graph.node import EMPTY

__all__ = ["Called", "Given", "Reading", "Variable", "common", "held", "narrowed", "read_nodes"]

FEW, OUTPUT_BYTES = 64, 64
"""Outputs of a node are counted beyond so many, each as so many bytes (which its text takes too)."""
MOST_STEPS = 8
"""So far is the way from a variable's handle to what reads it looked along."""
HANDED_ON = frozenset({"tf.Identity", "tf.Switch", "tf.RefSwitch", "tf.Enter"})
GIVEN_ON = MERGES | ENTERS | EXITS | NEXTS | {"Switch", "RefSwitch", "_SwitchN", "LoopCond", "ReadVariableOp"}
"""The operations whose shapes `passed_on` tells."""
Given = tuple[Spec, Dims]
"""What is known of an argument of a call; of a variable's handle, the shape of the variable."""
Called = Callable[[Any, Sequence[Given]], Sequence[Dims] | None]
"""(the NodeDef of a call, its inputs) -> the shapes of what it gives; None where nothing is known."""


def read_only(value: Any) -> Array:
    """A value as an array that cannot be written to."""
    array = np.asarray(value, object if isinstance(value, str | bytes) else None).view()
    array.setflags(write=False)
    return array


@attrs.frozen(eq=False)
class Variable:
    """A variable that nodes of a GraphDef read."""

    name: str
    """Its key among the graph's weights."""
    value: Array = attrs.field(converter=read_only)
    trainable: bool = True


class Reading(NamedTuple):
    """NodeDefs as they were read, producers first."""

    nodes: MutableMapping[str, Node]
    weights: MutableMapping[str, Array]
    elements: MutableMapping[str, Any]
    """Of small integer values, as far as they are known."""


def read_nodes(
    wiring: Wiring,
    handles: Mapping[str, Variable],
    functions: Mapping[str, Any],
    calling: frozenset[str],
    called: Called,
    room: Room,
    begun: Reading | None = None,
) -> Reading:
    """Read NodeDefs. `handles` are the variables by the nodes that are their handles, `functions` the FunctionDefs by name, `calling` the
    operations that `called` is asked about. What was read before them, and they may read, has `begun`: it takes up what is read.

    Raises `GraphError`, one line, where a constant cannot be read, or an output does not exist.
    """
    reading = begun or Reading({}, {}, {})
    nodes, weights, elements = reading
    kinds: dict[str, str] = {}
    specs: tuple[Spec, ...]
    for node, row in wiring.refs.items():
        one = wiring.definitions[node]
        op = one.op
        owner = Owner(node, 0, one)
        if op == "Const":
            if row:
                raise GraphError(f"node {node}: Const takes 0 inputs, not {len(row)}")
            array, specs = constant(one, room)
            weights[node] = array
            if array.dtype.kind in "iu":
                elements[node] = elements_of(array)
            nodes[node] = Node(node, "Const", (), Attributes(one) if one.input else EMPTY, {"value": node}, specs, None, owner)
            continue
        kind = kinds.get(op)
        if kind is None:
            if isinstance(one, Loop):
                nodes[node] = read_loop(one, reading, wiring.counts, functions, calling, called, room)
                continue
            check_name(op, f"the operation of node {node}")
            kinds[op] = kind = f"tf.{op}"
        try:
            known = [nodes[producer].specs[index] for producer, index in row]
        except IndexError:
            raise missing_output(row, nodes) from None
        told = output_specs(one, op, known, partial(element_of, row, elements), functions)
        specs = one_spec(None, "unknown") * max(wiring.counts.get(node, 1), 1) if told is None else told
        if len(specs) > FEW and not room.take(len(specs) * OUTPUT_BYTES):
            raise GraphError(f"node {node}: {len(specs)} outputs are more than all that the graph holds; the file may be corrupted")
        if op in calling or (op in GIVEN_ON and row):
            given = [(spec, held(ref, nodes, weights)) for spec, ref in zip(known, row, strict=True)]
            found = called(one, given) if op in calling else passed_on(op, given, len(specs))
            if found is not None and len(found) == len(specs):
                specs = tuple([one_spec(narrowed(spec.shape, shape), spec.dtype)[0] for spec, shape in zip(specs, found, strict=True)])
        if node in handles:
            weights[handles[node].name] = handles[node].value
            nodes[node] = Node(node, "Variable", row, {"weight": handles[node].name}, EMPTY, specs, None, owner)
        elif op == "Placeholder":
            nodes[node] = Node(node, "Input", (), EMPTY, EMPTY, specs, None, owner)
        else:
            nodes[node] = Node(node, kind, row, Attributes(one, len(one.input) > len(row)), EMPTY, specs, None, owner)
            if op in PASSED_ON:
                parts = [elements.get(producer) for producer, _ in row]
                if op in ("Shape", "Pack") or parts.count(None) < len(parts):  # these two tell something even where nothing is known
                    elements[node] = elements_after(one, parts, known[0].shape if known else None)
    for node in wiring.loops.awaiting:
        if isinstance(nodes[node].config, Attributes):
            nodes[node] = nodes[node].but(config=Awaiting(wiring.definitions[node], wiring.loops.inside))
    return reading


def read_loop(
    loop: Loop,
    begun: Reading,
    counts: Mapping[str, int],
    functions: Mapping[str, Any],
    calling: frozenset[str],
    called: Called,
    room: Room,
) -> Node:
    """The node that stands for a loop, whose own nodes are read and let go again."""
    if Loop.op in functions:
        raise GraphError(f"node {loop.name}: a loop goes by the operation {Loop.op} here, as one of the functions does; rename that")
    inside = Reading(*[ChainMap({}, known) for known in begun])

    def read(refs: Refs) -> None:
        read_nodes(Wiring(loop.nodes, refs, counts, set()), {}, functions, calling, called, room, inside)

    return loop_node(loop, inside.nodes, read)


def missing_output(row: Sequence[Ref], nodes: Mapping[str, Node]) -> GraphError:
    """The error of a node that reads more outputs than there are."""
    node, index = next((nodes[ref.node], ref.index) for ref in row if ref.index >= len(nodes[ref.node].specs))
    assert node.owner is not None
    return GraphError(f"node {node.name}: output {index} is read, {node.owner.source.op} gives {len(node.specs)}")


def element_of(inputs: Sequence[Ref], elements: Mapping[str, Any], place: int) -> Any:
    """The elements of one of a node's inputs."""
    return elements.get(inputs[place].node)


# shapes that the rules for operations do not give


def passed_on(op: str, given: Sequence[Given], outputs: int) -> Sequence[Dims]:
    """The shapes that the value of a variable has, or a value before a branch, or after it."""
    if op in MERGES:
        return [common([spec.shape for spec, _ in given]), ()]
    spec, variable = given[0]
    return [variable] if op == "ReadVariableOp" else [spec.shape] * outputs


def held(ref: Ref, nodes: Mapping[str, Node], weights: Mapping[str, Array]) -> Dims:
    """The shape of the variable that a value is the handle of, as far as that is known."""
    node = nodes[ref.node]
    for _ in range(MOST_STEPS):
        if node.op == "Variable":
            shape: Dims = weights[node.config["weight"]].shape
            return shape
        if node.op not in HANDED_ON:
            break
        node = nodes[node.inputs[0].node]
    return None


def common(shapes: Sequence[Dims]) -> Dims:
    """What is known of a value that has one of several shapes."""
    first = shapes[0]
    if first is None or any(shape is None or len(shape) != len(first) for shape in shapes):
        return None
    return tuple([sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*[shape or () for shape in shapes], strict=True)])

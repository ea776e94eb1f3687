"""Reading a GraphDef: every NodeDef becomes a node, in an order in which producers come first; constants become weights.

Operations keep their names with the prefix `tf.` and are opaque; `Placeholder` is an `Input`, `Const` a `Const`, a variable's handle a
`Variable`. A node's `owner.source` is its NodeDef, which also holds its control inputs. A loop as TensorFlow 1 writes it is one node, a
`tf.Loop`, whose source is a `Loop`.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any, Protocol

import attrs

from tfpasses.frontends.graph_def.functions.library import FunctionLibrary
from tfpasses.frontends.graph_def.reading.loops import Loops
from tfpasses.frontends.graph_def.reading.nodes import Variable
from tfpasses.frontends.graph_def.reading.wiring import by_name, wired
from tfpasses.graph import Array, Graph, GraphError, Node, Ref, Slot

__all__ = ["Container", "Source", "Variable", "from_graph_def"]

NOT_RESULTS = frozenset({"Input", "Const", "Variable", "tf.NoOp", "tf.Assert", "tf.SaveV2", "tf.RestoreV2"})
"""What nothing reads without being a result."""


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
    loops: Loops
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

    `inputs` are names of placeholders, without them all, in order, but for those that TensorFlow leaves behind where it copied loops.
    `outputs` are values (`node`, `node:1`); without them those of `Identity`, `Identity_1`, .. as TensorFlow names the results of a
    function, or of the one node that nothing reads. `variables` are those that are known, by the names of their handles.

    Raises `GraphError`, one line, where a name is missing or taken twice, an input does not exist, the nodes form a cycle that is no loop,
    or the outputs must be named.
    """
    handles = dict(variables or {})
    with collector_paused():
        wiring = wired(by_name(definition.node))
        functions = FunctionLibrary(definition, handles, wiring.loops)
        nodes, weights, _ = functions.read(wiring, handles)
        functions.arrays.update(weights)
    fed = list(inputs) if inputs is not None else [name for name in nodes if nodes[name].op == "Input" and not is_left(name, wiring.read)]
    for node in fed:
        if node not in nodes or nodes[node].op != "Input":
            raise GraphError(f"input {node}: {'it is no placeholder' if node in nodes else 'there is no such node'}")
    loops = wiring.loops
    results = guess_outputs(nodes, wiring.read) if outputs is None else [result_of(text, nodes, loops) for text in outputs]
    return Graph(
        nodes,
        weights,
        tuple(fed),
        tuple(results),
        input_structure=[Slot(index) for index in range(len(fed))],
        output_structure=[Slot(index) for index in range(len(results))],
        output_names=tuple([str(loops.read_as(ref)) for ref in results]),
        name=name,
        source=Source(definition, nodes, functions.arrays, handles, loops, container),
        functions=functions,
    )


def is_left(name: str, read: AbstractSet[str]) -> bool:
    """Whether nothing reads a placeholder, and it is one of those that stood for values that go round while TensorFlow copied a loop."""
    return name.startswith(LEFT) and name not in read


LEFT = "unused_control_flow_input"


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


def result_of(text: str, nodes: Mapping[str, Node], loops: Loops) -> Ref:
    """An output as the caller named it."""
    node, _, index = text.partition(":")
    if node in loops.inside:
        if node not in loops.exits or (index or "0") != "0":
            raise GraphError(f"output {text}: {'there is no such value' if node in loops.exits else 'it is inside of a loop'}")
        return loops.exits[node]
    place = next((place for place in range(len(nodes[node].specs)) if str(place) == (index or "0")), None) if node in nodes else None
    if place is None:
        raise GraphError(f"output {text}: there is no such value")
    return Ref(node, place)

"""The graph: a persistent value. A pass takes one and gives another; the two share every node and array that was not touched."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import attrs
import numpy as np

from tfpasses.graph.facts import Fact, FactKey
from tfpasses.graph.functions import Functions
from tfpasses.graph.node import EMPTY, Node
from tfpasses.graph.values import Ref, Slot, Spec

__all__ = ["OUTPUT", "Array", "Graph", "Scope", "Use", "Users"]

Array = np.ndarray[Any, Any]
OUTPUT = ""
"""Stands for the graph itself as a consumer: what it gives out is a use of the node like any other."""
Use = tuple[str, int]
"""(consumer, input position), or (`OUTPUT`, place among the graph's outputs)."""
Users = Mapping[str, Mapping[Use, int]]
"""Node -> {use: index of the node's output}. Every node has an entry."""

# What a graph can be turned into lives on floors above this one, so it is found by name when it is asked for.
TO_KERAS = "tfpasses.frontends.keras:to_keras"
TO_SVG = "tfpasses.view.dot:to_svg"

FIRST = Slot(0)


@attrs.frozen(eq=False)
class Scope:
    """A nested model that was inlined: the nodes whose names begin with its path, and the values that cross its border."""

    layer: str
    """The nested model's own path; uses of one nested model have it in common."""
    source: Any
    """The frontend's own object for the model."""
    inputs: tuple[Ref, ...]
    """The values it was called on."""
    outputs: tuple[Ref, ...]
    """The values it gives; followed through rewrites."""
    call: Any = None
    """How it was called."""
    straddled: bool = False
    """Whether a rewrite touched nodes on both sides of the border: then it leaves flattened."""


@attrs.frozen(eq=False)
class Graph:
    """A graph of operations with its weights, inputs, outputs and facts."""

    nodes: Mapping[str, Node]
    """In topological order."""
    weights: Mapping[str, Array] = EMPTY
    """Read-only arrays. A key in two nodes' params is a shared weight."""
    inputs: tuple[str, ...] = ()
    """The `Input` nodes' names."""
    outputs: tuple[Ref, ...] = ()
    input_structure: Any = FIRST
    """How a caller passes the inputs: dicts, lists and tuples over `Slot(i)`."""
    output_structure: Any = FIRST
    output_names: tuple[str, ...] = ()
    """The outputs' public names."""
    scopes: Mapping[str, Scope] = EMPTY
    facts: Mapping[FactKey, Fact] = attrs.field(factory=dict)
    name: str = "graph"
    source: Any = None
    """What the frontend needs to write the same kind of model."""
    functions: Functions | None = None
    """The functions that nodes may call, where the frontend has such."""

    @cached_property
    def users(self) -> Users:
        """Who uses each node's outputs, graph outputs among the uses."""
        users: dict[str, dict[Use, int]] = {name: {} for name in self.nodes}
        for name, node in self.nodes.items():
            for position, (producer, index) in enumerate(node.inputs):
                users[producer][name, position] = index
        for place, (producer, index) in enumerate(self.outputs):
            users[producer][OUTPUT, place] = index
        return users

    @cached_property
    def places(self) -> Mapping[str, int]:
        """The place of each node in the order."""
        return {name: place for place, name in enumerate(self.nodes)}

    @cached_property
    def weight_users(self) -> Mapping[str, tuple[str, ...]]:
        """Which nodes read each weight."""
        return index_weights(self.nodes)

    def spec(self, ref: Ref) -> Spec:
        """What is known of a value."""
        return self.nodes[ref.node].specs[ref.index]

    def params(self, node: Node) -> dict[str, Array]:
        """The node's parameters by slot."""
        return {slot: self.weights[key] for slot, key in node.params.items()}

    def facts_of(self, kind: type[Fact]) -> Iterator[tuple[Ref, Fact]]:
        """All facts of one kind."""
        return ((ref, fact) for (ref, name), fact in self.facts.items() if name == kind.kind)

    @cached_property
    def digest(self) -> str:
        """A hash of everything that decides what the graph computes: nodes, wiring, configuration and every weight's bytes."""
        from tfpasses.graph.text import digest

        return digest(self)

    def to_text(self) -> str:
        """The text form: a line a node, a line a weight. Stable and diffable."""
        from tfpasses.graph.text import to_text

        return to_text(self)

    def to_keras(self) -> Any:
        """A new Keras model that computes this graph. Raises `UnsupportedModelError` where Keras cannot express it."""
        return pkgutil.resolve_name(TO_KERAS)(self)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"<Graph {self.name}: {len(self.nodes)} nodes, {len(self.weights)} weights>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        svg: str | None = pkgutil.resolve_name(TO_SVG)(self, missing_ok=True)
        return {"text/plain": self.to_text()} | ({"image/svg+xml": svg} if svg is not None else {})


def index_weights(nodes: Mapping[str, Node]) -> dict[str, tuple[str, ...]]:
    users: dict[str, dict[str, None]] = {}
    for node in nodes.values():
        for key in node.params.values():
            users.setdefault(key, {})[node.name] = None
    return {key: tuple(names) for key, names in users.items()}

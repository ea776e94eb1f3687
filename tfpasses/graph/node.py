"""A node: one operation of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from tfpasses.graph.values import Call, Ref, Spec

__all__ = ["Node", "Owner"]

EMPTY: Mapping[str, Any] = MappingProxyType({})


@attrs.frozen(eq=False)
class Owner:
    """The source layer (or function call) that a node came from. Nodes with the same `layer` and `use` leave as one call of one layer."""

    layer: str
    """The layer's path, nested models' names first: `backbone/conv1`. Calls of one shared layer have it in common."""
    use: int
    """Which call of the layer, counted from 0."""
    source: Any
    """The frontend's own object for the layer. Never changed, never called but to evaluate."""
    part: str = ""
    """Which part of the layer: empty for its main operation, `activation` for what `activation=` adds."""


@attrs.frozen(eq=False)
class Node:
    """An operation with its inputs, static configuration and parameters. Persistent: `attrs.evolve` gives a changed copy.

    `op` is a canonical name of the vocabulary (`tfpasses.graph.ops`), or a foreign one with its frontend's prefix (`keras.LSTM`),
    which is opaque.
    """

    name: str
    op: str
    inputs: tuple[Ref, ...] = ()
    config: Mapping[str, Any] = EMPTY
    params: Mapping[str, str] = EMPTY
    """Parameter slot (`kernel`, `bias`, ..) -> key in `Graph.weights`. Two nodes with one key share the weight."""
    specs: tuple[Spec, ...] = ()
    """One spec an output."""
    call: Call | None = None
    """How the operation was called; None means the operation's plain form, its inputs in order."""
    owner: Owner | None = None
    origin: tuple[str, ...] = ()
    """Names of the source nodes that this one stands for; empty for a node as it was read."""
    made_by: str = ""
    """The pass that made or last changed it; empty for a node as it was read."""

    def fed_by(self, inputs: tuple[Ref, ...]) -> Node:
        """The same node on other inputs."""
        return Node(self.name, self.op, inputs, self.config, self.params, self.specs, self.call, self.owner, self.origin, self.made_by)

    def but(self, **fields: Any) -> Node:
        """A copy with other values in some fields: `attrs.evolve` at half its time, which every rewrite spends."""
        take = fields.pop
        copy = Node(
            take("name", self.name),
            take("op", self.op),
            take("inputs", self.inputs),
            take("config", self.config),
            take("params", self.params),
            take("specs", self.specs),
            take("call", self.call),
            take("owner", self.owner),
            take("origin", self.origin),
            take("made_by", self.made_by),
        )
        if fields:
            raise TypeError(f"a node has no field {', '.join(fields)}")
        return copy

    @property
    def scope(self) -> str:
        """The path of the nested model that the node belongs to, empty at the top."""
        return self.name.rpartition("/")[0]

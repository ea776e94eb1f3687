"""What a frontend knows of its graphs beyond their values: functions that nodes call, and which node waits for which."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs

from tfpasses.graph.node import Node
from tfpasses.graph.values import Ref, Spec

if TYPE_CHECKING:
    from tfpasses.graph.graph import Graph

__all__ = ["Body", "Functions"]


@attrs.frozen(eq=False)
class Body:
    """What stands in the place of a call: the nodes of its function, named for the call (`call/node`)."""

    graph: Graph
    """Its `Input` nodes stand for the call's arguments, its outputs for the call's outputs, in order."""
    done: Node | None = None
    """A node of the call's name that ends when all has happened that the call's end stands for; None where nobody can wait for more than
    its values.
    """
    compiled: bool = False
    """Whether the call is to be compiled as a whole."""


class Functions(Protocol):
    """The functions that nodes of a graph may call. A node may also wait for another whose values it does not read: `_control` in its
    configuration are the names of those.
    """

    @property
    def names(self) -> Collection[str]:
        """The functions' names. A node of operation `tf.` and such a name calls it."""
        ...

    @property
    def contents(self) -> Mapping[str, str]:
        """A hash of what each function does, by its name, which may be another each time that it is read."""
        ...

    @property
    def unknown(self) -> Collection[str]:
        """Operations of the source that are neither functions nor known to the frontend."""
        ...

    def body(
        self,
        call: Node,
        attribute: str,
        number: int = 0,
        specs: Sequence[Spec] | None = None,
        taken: Callable[[str], bool] | None = None,
    ) -> Body:
        """What would stand in the place of a node that calls the function which its configuration names under `attribute` (as number
        `number`, where that is a list). `specs` are those of the function's arguments; `taken` says of a name whether it must not be used.

        Raises `GraphError`, one line, where it cannot: an unknown or recursive function, arguments that do not fit.
        """
        ...

    def has_effects(self, node: Node) -> bool:
        """Whether a node does more than give its values: writes a variable, prints, checks something."""
        ...

    def waiting(self, name: str) -> Collection[str]:
        """Nodes that may wait for a node of this name (those that do say so in `_control`)."""
        ...

    def passing(self, node: Node, value: Ref, spec: Spec) -> Node:
        """A node of another's name that gives a value on, when all has ended that the other waits for."""
        ...

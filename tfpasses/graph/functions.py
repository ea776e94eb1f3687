"""Functions that nodes of a graph may call, as graphs of their own. A frontend that has such supplies them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

from tfpasses.graph.node import Node

if TYPE_CHECKING:
    from tfpasses.graph.graph import Graph

__all__ = ["Body", "Functions"]


@attrs.frozen(eq=False)
class Body:
    """What stands in the place of a call: the nodes of its function, named for the call (`call/node`)."""

    graph: Graph
    """Its `Input` nodes stand for the call's arguments, its outputs for the call's outputs, in order."""
    done: Any = None
    """The frontend's own object for a node, of the call's name, that ends when all has happened that a call's end stands for; None where
    nothing but its values can be waited for.
    """


class Functions(Protocol):
    """The functions of a graph."""

    def body(self, call: Node, attribute: str) -> Body:
        """What would stand in the place of a node that calls the function which its configuration names under `attribute`.

        Raises `GraphError`, one line, where it cannot: an unknown or recursive function, arguments that do not fit.
        """
        ...

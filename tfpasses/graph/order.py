"""Topological order."""

from __future__ import annotations

from collections.abc import Mapping

from tfpasses.graph.errors import GraphError
from tfpasses.graph.node import Node

__all__ = ["sort_nodes"]


def sort_nodes(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """The nodes in topological order, as near to the given order as that allows. Linear; raises `GraphError` on a cycle."""
    done: dict[str, Node] = {}
    opened: set[str] = set()
    for start in nodes:
        stack = [start]
        while stack:
            name = stack[-1]
            if name in done:
                stack.pop()
                continue
            waiting = [ref.node for ref in nodes[name].inputs if ref.node not in done]
            if not waiting:
                done[name] = nodes[name]
                stack.pop()
                continue
            if name in opened:
                raise GraphError(f"the graph has a cycle through node {name}")
            opened.add(name)
            stack.extend(reversed(waiting))
    return done

"""Topological order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tfpasses.graph.errors import GraphError
from tfpasses.graph.node import Node

__all__ = ["sort_keys", "sort_nodes"]


def sort_nodes(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """The nodes in topological order, as near to the given order as that allows. Linear; raises `GraphError` on a cycle."""
    if is_sorted(nodes):
        return dict(nodes)
    return {name: nodes[name] for name in sort_keys(nodes, lambda name: [ref.node for ref in nodes[name].inputs])}


def is_sorted(nodes: Mapping[str, Node]) -> bool:
    """Whether every node comes after those that feed it."""
    seen: set[str] = set()
    for name, node in nodes.items():
        for ref in node.inputs:
            if ref.node not in seen:
                return False
        seen.add(name)
    return True


def sort_keys(keys: Iterable[str], before: Callable[[str], Iterable[str]]) -> list[str]:
    """The keys, each after all that `before` names, as near to the given order as that allows. Linear; raises `GraphError` on a cycle."""
    done: dict[str, None] = {}
    opened: set[str] = set()
    for start in keys:
        stack = [start]
        while stack:
            key = stack[-1]
            if key in done:
                stack.pop()
                continue
            waiting = [other for other in before(key) if other not in done]
            if not waiting:
                done[key] = None
                stack.pop()
                continue
            if key in opened:
                raise GraphError(f"the graph has a cycle through node {key}")
            opened.add(key)
            stack.extend(reversed(waiting))
    return list(done)

"""Topological order."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from itertools import chain

from tfpasses.graph.errors import GraphError
from tfpasses.graph.node import Node

__all__ = ["sort_keys", "sort_nodes"]


def sort_nodes(nodes: Mapping[str, Node], order: Iterable[str]) -> dict[str, Node]:
    """The nodes in topological order, as near as that allows to `order` (which may lack some nodes, and name others), then to their own.

    Linear; raises `GraphError` on a cycle.
    """
    done: dict[str, Node] = {}

    def before(name: str) -> list[str]:
        return [ref.node for ref in nodes[name].inputs]

    def ready(node: Node) -> bool:
        for producer, _ in node.inputs:  # noqa: SIM110  # a generator costs more than the look-ups
            if producer not in done:
                return False
        return True

    for name in chain(order, nodes):
        if name in done or name not in nodes:
            continue
        node = nodes[name]
        for producer, _ in node.inputs:
            if producer in done:
                continue
            if producer in nodes and ready(nodes[producer]):  # a new node, most likely
                done[producer] = nodes[producer]
            else:
                for late in upstream(producer, before, done):
                    done[late] = nodes[late]
        done[name] = node
    return done


def sort_keys(keys: Iterable[str], before: Callable[[str], Iterable[str]]) -> list[str]:
    """The keys, each after all that `before` names, as near to the given order as that allows. Linear; raises `GraphError` on a cycle."""
    done: dict[str, None] = {}
    for start in keys:
        for key in upstream(start, before, done):
            done[key] = None
    return list(done)


def upstream(start: str, before: Callable[[str], Iterable[str]], done: Container[str]) -> Iterator[str]:
    """What has to come before a key, and the key itself, in order. The caller puts into `done` what it is given."""
    stack, opened = [start], set()
    while stack:
        key = stack[-1]
        waiting = [] if key in done else [other for other in before(key) if other not in done]
        if waiting:
            if key in opened:
                raise GraphError(f"the graph has a cycle through node {key}")
            opened.add(key)
            stack.extend(reversed(waiting))
            continue
        stack.pop()
        if key not in done:
            yield key

"""A graph parted into levels by some of its linear nodes: what each reads depends only on the corrections of levels before its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs

from tfpasses.graph import Graph, Node, Ref

__all__ = ["Level", "levels"]

CONSTANT = -1
"""The level of what depends on no input: it is computed where it is read."""


@attrs.define(eq=False)
class Level:
    """What is computed once all layers of the levels before are corrected. Each field is an ordered set."""

    nodes: dict[str, Node] = attrs.field(factory=dict)
    """The linear nodes that are measured here, by name: what they read is known now."""
    totals: dict[Ref, None] = attrs.field(factory=dict)
    """What they read."""
    feeds: dict[Ref, None] = attrs.field(factory=dict)
    """Values of earlier levels (of the first one, the graph's inputs) that are read now."""
    fetches: dict[Ref, None] = attrs.field(factory=dict)
    """Values that come to be now and are read later."""
    dead: dict[Ref, None] = attrs.field(factory=dict)
    """Values of earlier levels that nothing reads after this one."""


def levels(graph: Graph, measured: Collection[str]) -> list[Level]:
    """The levels of a graph by the linear nodes of these names, as far as is needed for what those read; linear in the graph's size."""
    known: dict[str, int] = {}
    start: dict[str, int] = {}
    steps = above(graph, measured)
    for name in sorted({*steps, *measured}, key=graph.places.__getitem__):
        node = graph.nodes[name]
        begun = max((known[ref.node] for ref in node.inputs), default=0 if node.op == "Input" else CONSTANT)
        start[name] = max(begun, 0) if name in measured else begun
        known[name] = start[name] + (name in measured)
    found = [Level() for _ in range(1 + max((start[name] for name in measured), default=-1))]
    last: dict[Ref, int] = {}
    for name in steps:
        for ref in graph.nodes[name].inputs:
            read_at(ref, known[name], found, known, last, graph)
    for name in sorted(measured, key=graph.places.__getitem__):
        node, place = graph.nodes[name], start[name]
        found[place].nodes[name] = node
        found[place].totals[node.inputs[0]] = None
        read_at(node.inputs[0], place, found, known, last, graph)
    for ref, place in last.items():
        found[place].dead[ref] = None
    return found


def read_at(ref: Ref, place: int, found: Sequence[Level], known: dict[str, int], last: dict[Ref, int], graph: Graph) -> None:
    """A value is read on a level: it is fed there, and kept until then, where it came to be before."""
    made, given = known[ref.node], graph.nodes[ref.node].op == "Input"
    if made == CONSTANT or (made == place and not given):
        return
    found[place].feeds[ref] = None
    if not given:
        found[made].fetches[ref] = None
    last[ref] = max(last.get(ref, 0), place)


def above(graph: Graph, names: Collection[str]) -> list[str]:
    """The nodes that some nodes' inputs depend on, in topological order."""
    stack = [ref.node for name in names for ref in graph.nodes[name].inputs]
    met: set[str] = set()
    while stack:
        name = stack.pop()
        if name not in met:
            met.add(name)
            stack += [ref.node for ref in graph.nodes[name].inputs]
    return sorted(met, key=graph.places.__getitem__)

"""What is known of the values that a loop gives: of each that goes round, what holds of it in every iteration."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import NamedTuple

from tfpasses.frontends.graph_def.reading.loops import LOOP, MERGES, NEXTS, Loop, LoopAttributes, Refs
from tfpasses.frontends.graph_def.reading.specs import one_spec
from tfpasses.graph import GraphError, Node, Owner, Ref
from tfpasses.graph.node import EMPTY
from tfpasses.graph.order import sort_keys

__all__ = ["loop_node"]

MOST_ROUNDS = 8
"""So often is a loop gone round; what goes round and is another then still is not known."""


class Back(NamedTuple):
    """A value that goes round."""

    merge: str
    enters: Ref
    """What it is at first."""
    next: str
    """The NextIteration by which it comes back."""


def loop_node(loop: Loop, nodes: MutableMapping[str, Node], read: Callable[[Refs], None]) -> Node:
    """The node that stands for a loop. `nodes` are those that were read before it, `read` adds nodes of the loop that read these values.

    Raises `GraphError` where nodes of it form a cycle by which no value goes round, and as `read` does.
    """
    back = values_going_round(loop)
    refs = {name: loop.refs[name] for name in in_order(loop)}
    read(refs | {one.merge: tuple([one.enters if goes_round(ref.node, loop) else ref for ref in refs[one.merge]]) for one in back})
    if any(nodes[one.next].specs != (nodes[one.enters.node].specs[one.enters.index],) for one in back):
        constant = {name for name in refs if loop.nodes[name].op == "Const"}
        settle([one.next for one in back], nodes, lambda: read({name: row for name, row in refs.items() if name not in constant}))
    specs = tuple([nodes[name].specs[0] for name in loop.exits])
    return Node(loop.name, LOOP, loop.inputs, LoopAttributes(loop), EMPTY, specs, None, Owner(loop.name, 0, loop))


def settle(names: Sequence[str], nodes: MutableMapping[str, Node], again: Callable[[], None]) -> None:
    """Read a loop again, each time on what the NextIterations of these names gave before, until they give the same: then that is what holds
    of them always.
    """
    for _ in range(MOST_ROUNDS):
        before = [nodes[name].specs for name in names]
        again()
        if [nodes[name].specs for name in names] == before:
            return
    for name in names:
        nodes[name] = nodes[name].but(specs=one_spec(None, nodes[name].specs[0].dtype))
    again()


def values_going_round(loop: Loop) -> list[Back]:
    """Those of a loop and of the loops in it. Raises `GraphError` for one that is nothing at first."""
    found = []
    for name, row in loop.refs.items():
        if loop.nodes[name].op in MERGES:
            forward = [ref for ref in row if not goes_round(ref.node, loop)]
            round_again = [ref for ref in row if goes_round(ref.node, loop)]
            if len(round_again) > 1:
                raise GraphError(f"node {name}: {len(round_again)} values come back by it, not one")
            for node, index in round_again:
                if index or not forward:
                    raise GraphError(f"node {name}: {f'output {index} of {node} does not exist' if index else 'nothing enters by it'}")
                found.append(Back(name, forward[0], node))
    return found


def goes_round(name: str, loop: Loop) -> bool:
    """Whether a node gives what comes back in the next iteration."""
    return name in loop.nodes and loop.nodes[name].op in NEXTS


def in_order(loop: Loop) -> list[str]:
    """The nodes of a loop as one iteration runs them."""

    def before(name: str) -> list[str]:
        merges = loop.nodes[name].op in MERGES
        return [node for node, _ in loop.refs[name] if node in loop.nodes and not (merges and goes_round(node, loop))]

    return sort_keys(loop.nodes, before)

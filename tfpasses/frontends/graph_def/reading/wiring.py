"""Who reads whom among NodeDefs: their names and inputs, checked, producers first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tfpasses.frontends.graph_def.reading.loops import Loops, loops_in
from tfpasses.graph import GraphError, Ref
from tfpasses.graph.order import sort_keys

__all__ = ["MOST_OUTPUTS", "Wiring", "by_name", "check_name", "ref_of", "wired"]

MOST_OUTPUTS = 1 << 16
"""A node gives no more."""
is_name = re.compile(r"[\w.][\w.\\/>-]*", re.ASCII).fullmatch
"""What TensorFlow takes for a name, and those of its own that begin with an underscore."""

NO_LOOPS = Loops()


class Wiring(NamedTuple):
    """What NodeDefs read."""

    definitions: Mapping[str, Any]
    """The NodeDefs by name, and loops by the names of the nodes that stand for them."""
    refs: Mapping[str, tuple[Ref, ...]]
    """The values that each reads, by its name, in an order in which producers come first."""
    counts: Mapping[str, int]
    """How many outputs a node must have for all that is read of it, where that is more than one."""
    read: set[str]
    """The nodes that others read or wait for."""
    loops: Loops = NO_LOOPS


def by_name(nodes: Sequence[Any]) -> dict[str, Any]:
    """NodeDefs by their names. Raises `GraphError` where one has none, one that TensorFlow does not take, or another's."""
    definitions = {one.name: one for one in nodes}
    if len(definitions) < len(nodes) or not all(map(is_name, definitions)):
        seen = set()
        for one in nodes:
            check_name(one.name, f"a node of operation {shown(one.op)}")
            if one.name in seen:
                raise GraphError(f"two nodes are named {one.name}")
            seen.add(one.name)
    return definitions


def check_name(name: str, whose: str) -> None:
    """Raise `GraphError` for a name (of a node or an operation) that TensorFlow does not take."""
    if not is_name(name):
        raise GraphError(f"{whose} has the name {shown(name)}, which TensorFlow does not allow" if name else f"{whose} has no name")


def wired(definitions: Mapping[str, Any]) -> Wiring:
    """What each of the NodeDefs reads. Raises `GraphError` where that does not exist, or where they form a cycle that is no loop."""
    refs: dict[str, tuple[Ref, ...]] = {}
    counts: dict[str, int] = {}
    read: set[str] = set()
    ordered = True
    for name, one in definitions.items():
        row = []
        for text in one.input[:]:  # a list is walked faster than a protocol buffer's container
            if text in refs:
                row.append(Ref(text))
                read.add(text)
            elif text[:1] == "^":
                if text[1:] not in definitions:
                    raise GraphError(f"node {name}: its control input {shown(text)} does not exist")
                read.add(text[1:])
            else:
                ref = ref_of(name, text, definitions)
                row.append(ref)
                read.add(ref.node)
                counts[ref.node] = max(counts.get(ref.node, 0), ref.index + 1)
                ordered = ordered and ref.node in refs
        refs[name] = tuple(row)
    if ordered:
        return Wiring(definitions, refs, counts, read)
    loops = loops_in(definitions, refs)
    if loops.by_name:
        definitions, refs = loops.gathered(definitions), loops.outside(refs)
        read.update([loops.inside[name] for name in loops.exits if name in read])
    refs = {name: refs[name] for name in sort_keys(refs, lambda name: [node for node, _ in refs[name]])}
    return Wiring(definitions, refs, counts, read, loops)


def ref_of(user: str, text: str, definitions: Mapping[str, Any]) -> Ref:
    """`node` or `node:1` as a reference to a value."""
    node, colon, index = text.partition(":")
    if node not in definitions:
        raise GraphError(f"node {user}: its input {shown(text)} does not exist")
    if not colon:
        return Ref(node)
    if not (index.isascii() and index.isdecimal()):
        raise GraphError(f"node {user}: its input {shown(text)} names no output; write node:0")
    if len(index) > len(str(MOST_OUTPUTS)) or int(index) >= MOST_OUTPUTS:
        raise GraphError(f"node {user}: its input {shown(text)} does not exist; no node has so many outputs")
    return Ref(node, int(index))


def shown(text: str) -> str:
    """A text of a file as part of a message of one line."""
    text = text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + ".."
    return (text if text.isprintable() else ascii(text)) or "(none)"


MOST_SHOWN = 200

"""Loops as TensorFlow 1 writes them: Enter, Merge, LoopCond, Switch, NextIteration and Exit nodes, which form a cycle. Each loop, with all
that lies in it, loops in loops among it, is one node that nobody looks into.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any, ClassVar, NamedTuple

import attrs

from tfpasses.frontends.graph_def.protos.attributes import Attributes
from tfpasses.graph import GraphError, Ref
from tfpasses.graph.node import EMPTY

__all__ = [
    "ENTERS",
    "EXITS",
    "LOOP",
    "MERGES",
    "NEXTS",
    "Awaiting",
    "Loop",
    "LoopAttributes",
    "Loops",
    "Refs",
    "loops_in",
    "names_in_loops",
]

LOOP = "tf.Loop"
"""The operation of the node that stands for a loop."""
ENTERS = frozenset({"Enter", "RefEnter"})
EXITS = frozenset({"Exit", "RefExit"})
MERGES = frozenset({"Merge", "RefMerge"})
NEXTS = frozenset({"NextIteration", "RefNextIteration"})
Refs = Mapping[str, tuple[Ref, ...]]
"""Node -> the values that it reads."""
Names = Mapping[str, Sequence[str]]


@attrs.frozen(eq=False, slots=False)
class Loop:
    """One loop, from its Enters to its Exits."""

    op: ClassVar[str] = "Loop"
    name: str
    """Of the node that stands for it: that of its first Exit, so that who waits for the one waits for the other. Without an Exit (nothing
    leaves it then) that of its first node.
    """
    nodes: Mapping[str, Any]
    """Its NodeDefs by name, in the order of the file."""
    exits: tuple[str, ...]
    """The Exits by which values leave it: its outputs."""
    refs: Refs
    """What each of its nodes reads, from inside or from outside."""
    inputs: tuple[Ref, ...]
    """The values that it reads from outside."""
    waits: tuple[str, ...]
    """The nodes outside that it waits for."""

    @cached_property
    def content(self) -> str:
        """A hash of its NodeDefs, whatever those are called from which it reads."""
        state = blake2b(digest_size=6)
        places = {ref: f"input {place}" for place, ref in enumerate(self.inputs)}
        for name, one in self.nodes.items():
            alone = type(one)()
            alone.CopyFrom(one)
            control = [text for text in one.input if text[:1] == "^" and text[1:] in self.nodes]
            alone.input[:] = [*[str(places.get(ref, ref)) for ref in self.refs[name]], *control]
            state.update(alone.SerializeToString(deterministic=True))
        return state.hexdigest()


class LoopAttributes(Mapping[str, Any]):
    """The configuration of the node that stands for a loop: how many nodes it has, and a hash of them. `_control` is as in `Attributes`."""

    __slots__ = ("loop",)

    def __init__(self, loop: Loop) -> None:
        self.loop = loop

    def __getitem__(self, key: str) -> Any:
        if key == "_control":
            return list(self.loop.waits)
        if key not in ("content", "nodes"):
            raise KeyError(key)
        return self.loop.content if key == "content" else len(self.loop.nodes)

    def __iter__(self) -> Iterator[str]:
        return iter(("content", "nodes"))

    def __len__(self) -> int:
        return 2


class Awaiting(Attributes):
    """The attributes of a NodeDef that waits for loops: `_control` names the nodes that stand for them."""

    __slots__ = ("inside",)

    def __init__(self, node: Any, inside: Mapping[str, str]) -> None:
        super().__init__(node)
        self.inside = inside

    def __getitem__(self, key: str) -> Any:
        found = super().__getitem__(key)
        return list(dict.fromkeys([self.inside.get(name, name) for name in found])) if key == "_control" else found


@attrs.frozen(eq=False)
class Loops:
    """The loops of a graph."""

    by_name: Mapping[str, Loop] = EMPTY
    inside: Mapping[str, str] = EMPTY
    """Node of a loop -> the loop's name."""
    exits: Mapping[str, Ref] = EMPTY
    """Exit -> the output of a loop that stands for its value."""
    awaiting: tuple[str, ...] = ()
    """The nodes outside that wait for an Exit."""

    def standing(self, one: str) -> str:
        """The node that stands for one."""
        return self.inside.get(one, one)

    def read_as(self, ref: Ref) -> Ref:
        """A value as it is named in the file: an output of a loop is that of an Exit."""
        return Ref(self.by_name[ref.node].exits[ref.index]) if ref.node in self.by_name else ref

    def gathered(self, definitions: Mapping[str, Any]) -> Mapping[str, Any]:
        """NodeDefs, with loops in the place of their nodes."""
        return {name: one for name, one in definitions.items() if name not in self.inside} | dict(self.by_name)

    def outside(self, refs: Refs) -> dict[str, tuple[Ref, ...]]:
        """What each node reads that is not in a loop, and what each loop does."""
        found: dict[str, tuple[Ref, ...]] = {}
        for name, row in refs.items():
            if name not in self.inside:
                found[name] = moved(row, self.exits)
            elif self.inside[name] not in found:
                found[self.inside[name]] = self.by_name[self.inside[name]].inputs
        return found


def loops_in(definitions: Mapping[str, Any], refs: Refs) -> Loops:
    """The loops among NodeDefs, of which `refs` tells what they read. Linear; where there is no NextIteration, there is none.

    Raises `GraphError` where a node reads, or waits for, both what is in a loop and what is not.
    """
    if not any(one.op in NEXTS for one in definitions.values()):
        return Loops()
    waits = {name: [text[1:] for text in one.input if text[:1] == "^"] for name, one in definitions.items()}
    users: dict[str, list[str]] = {name: [] for name in definitions}
    for name, row in refs.items():
        for other in dict.fromkeys([*(ref.node for ref in row), *waits[name]]):
            users[other].append(name)
    depths = depths_of(definitions, users, [name for name, row in refs.items() if not row and not waits[name]])
    parts: dict[int, list[str]] = {}
    for name, part in connected(definitions, users, depths.after).items():
        parts.setdefault(part, []).append(name)
    members: dict[str, list[str]] = {}
    inside: dict[str, str] = {}
    exits: dict[str, Ref] = {}
    for names in parts.values():
        if any(definitions[name].op in NEXTS for name in names):
            leaving = [name for name in names if definitions[name].op in EXITS and not depths.after[name]]
            loop = (leaving or names)[0]
            members[loop] = names
            inside.update(dict.fromkeys(names, loop))
            exits.update({name: Ref(loop, place) for place, name in enumerate(leaving)})
    by_name = {name: loop_of(name, members[name], definitions, refs, waits, inside, exits) for name in members}
    awaiting = [name for name, others in waits.items() if name not in inside and any(other in exits for other in others)]
    return Loops(by_name, inside, exits, tuple(awaiting))


def names_in_loops(nodes: Sequence[Any]) -> list[str]:
    """The nodes that lie in loops; what they read that is not among them lies in none. Raises `GraphError`, see `loops_in`."""
    if not any(one.op in NEXTS for one in nodes):
        return []
    definitions = {one.name: one for one in nodes}
    users: dict[str, list[str]] = {name: [] for name in definitions}
    first = []
    for name, one in definitions.items():
        read = {text.lstrip("^").partition(":")[0] for text in one.input} & definitions.keys()
        if not read:
            first.append(name)
        for other in read:
            users[other].append(name)
    depths = depths_of(definitions, users, first)
    return [name for name in definitions if depths.before.get(name) or depths.after.get(name)]


def loop_of(
    loop: str,
    names: Sequence[str],
    definitions: Mapping[str, Any],
    refs: Refs,
    waits: Names,
    inside: Mapping[str, str],
    exits: Mapping[str, Ref],
) -> Loop:
    """One loop. Raises `GraphError` where it reads what it gives."""
    for name in names:
        if any(ref.node in exits and exits[ref.node].node == loop for ref in refs[name]):
            raise GraphError(f"the graph has a cycle through node {name}")
    read = {name: moved(refs[name], exits) for name in names}
    awaited = [inside.get(other, other) for name in names for other in waits[name]]
    return Loop(
        loop,
        {name: definitions[name] for name in names},
        tuple([name for name in names if name in exits]),
        read,
        tuple(dict.fromkeys([ref for row in read.values() for ref in row if inside.get(ref.node) != loop])),
        tuple(dict.fromkeys([other for other in awaited if other != loop])),
    )


def moved(row: tuple[Ref, ...], exits: Mapping[str, Ref]) -> tuple[Ref, ...]:
    """References to values, with loops in the place of their Exits. Raises `GraphError` for an output that an Exit does not have."""
    for node, index in row:
        if index and node in exits:
            raise GraphError(f"node {node}: output {index} is read, an Exit gives 1")
    return tuple([exits.get(ref.node, ref) for ref in row])


class Depths(NamedTuple):
    """In how many loops nodes lie."""

    before: dict[str, int]
    """What they read."""
    after: dict[str, int]
    """What they give: one more for an Enter, one less for an Exit."""


def depths_of(definitions: Mapping[str, Any], users: Names, first: Sequence[str]) -> Depths:
    """The depths of nodes, found from those that read and await nothing. A cycle that nothing enters has none.

    Raises `GraphError` where a node reads, or waits for, what lies in more loops and what lies in fewer, which TensorFlow does not run.
    """
    before = dict.fromkeys(first, 0)
    after: dict[str, int] = {}
    reached = list(first)
    for name in reached:  # grows while it is walked
        op = definitions[name].op
        deep = after[name] = max(0, before[name] + (op in ENTERS) - (op in EXITS))
        for user in users[name]:
            if user not in before:
                before[user] = deep
                reached.append(user)
            elif before[user] != deep:
                raise GraphError(f"node {user}: it reads (or waits for) {name} and others, of which some are in a loop and some are not")
    return Depths(before, after)


def connected(definitions: Mapping[str, Any], users: Names, after: Mapping[str, int]) -> dict[str, int]:
    """The nodes that lie in loops, in the order of the file, numbered alike where something holds them together in a loop."""
    beside: dict[str, list[str]] = {}
    for name, others in users.items():
        if after.get(name):
            beside.setdefault(name, []).extend(others)
            for other in others:
                beside.setdefault(other, []).append(name)
    numbers: dict[str, int] = {}
    for number, start in enumerate(beside):
        stack = [] if start in numbers else [start]
        while stack:
            name = stack.pop()
            if name not in numbers:
                numbers[name] = number
                stack += beside[name]
    return {name: numbers[name] for name in definitions if name in numbers}

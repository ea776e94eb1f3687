"""What matching gives: a `Match`, or a `Miss` that says how near it came."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from tfpasses.graph import Node, Ref

__all__ = ["Match", "Miss"]

Captured = Ref | tuple[Ref | None, ...] | None


@attrs.define(eq=False)
class Match:
    """Where a pattern matched. `match["name"]` is the captured node, `match.ref("name")` the captured value."""

    root: Node
    refs: Mapping[str, Captured]
    graph: Any

    def __getitem__(self, name: str) -> Node:
        ref = self.refs[name]
        if not isinstance(ref, Ref):
            raise KeyError(f"{name} captured {'nothing' if ref is None else 'several nodes'}; use get() or all()")
        node: Node = self.graph.nodes[ref.node]
        return node

    def get(self, name: str) -> Node | None:
        """The captured node, or None where an optional or an untried alternative would have captured it."""
        return None if self.refs.get(name) is None else self[name]

    def all(self, name: str) -> tuple[Node, ...]:
        """The nodes captured by a variadic pattern, in the order of the inputs; those that an optional left out are left out."""
        refs = self.refs[name]
        if refs is None or isinstance(refs, Ref):
            return () if refs is None else (self[name],)
        return tuple(self.graph.nodes[ref.node] for ref in refs if ref is not None)

    def ref(self, name: str) -> Ref:
        """The captured value."""
        ref = self.refs[name]
        if not isinstance(ref, Ref):
            raise KeyError(f"{name} did not capture one value")
        return ref

    def miss(self, reason: str, node: Node | None = None, remedy: str = "") -> Miss:
        """What a rule returns when it declines a match: the reason, where it lies (the root unless told), and what would help."""
        return Miss(self.root.name, (node or self.root).name, len(self.refs), lambda: reason, remedy)


@attrs.frozen(eq=False)
class Miss:
    """A near miss. Nothing is formatted until `reason` is read."""

    root: str
    """The node that the pattern was tried at."""
    node: str
    """The node where it failed."""
    depth: int
    """How many checks of the pattern held before it failed."""
    format: Callable[[], str] = attrs.field(repr=False)
    remedy: str = ""
    pattern: str = ""
    """File and line of the pattern."""

    @property
    def reason(self) -> str:
        """What was wrong, in words."""
        return self.format()

    def __str__(self) -> str:
        return self.reason

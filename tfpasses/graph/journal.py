"""The journal: what one rewrite did, and what became of a value through many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tfpasses.graph.values import Ref

__all__ = ["Rewrite", "follow"]


class Rewrite(NamedTuple):
    """One successful rewrite, as the journal keeps it."""

    pass_name: str
    number: int
    """Counted from 1 within the pass."""
    rule: str
    root: str
    """The node that the pattern matched at."""
    made: tuple[str, ...]
    changed: tuple[str, ...]
    """Nodes whose parameters or configuration changed; a mere change of inputs by a redirect does not count."""
    removed: tuple[str, ...]
    redirects: tuple[tuple[Ref, Ref], ...]
    touched: tuple[str, ...]
    """Nodes at which, or downstream of which, a pattern may match now that did not before; some of them may be named twice."""
    payload: Mapping[str, Any]
    """What the rule noted of it."""

    def __str__(self) -> str:
        parts = [f"{self.pass_name} #{self.number} {self.rule} at {self.root}"]
        parts += [
            f"{word} {', '.join(names)}"
            for word, names in (("made", self.made), ("changed", self.changed), ("removed", self.removed))
            if names
        ]
        parts += [f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in self.payload.items()]
        return "; ".join(parts)


def follow(ref: Ref, redirects: Mapping[Ref, Ref]) -> Ref:
    """The value that stands for `ref` after the redirects."""
    seen = {ref}
    while (new := redirects.get(ref)) is not None and new not in seen:
        seen.add(ref := new)
    return ref

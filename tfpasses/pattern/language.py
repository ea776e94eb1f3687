"""The pattern language: combinators that read like the graph and hold their reasons.

    LINEAR = op(trait="linear").only_use()["lin"]
    FOLD = op("BatchNorm")["bn"](repeated(op("Identity"), LINEAR))

A pattern is a value; it is compiled on first use (`tfpasses.pattern.compiler`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import attrs

from tfpasses.graph import OUTPUT, VOCABULARY, Node, ops_with_trait

SHOWN_USES = 3

__all__ = [
    "Alternatives",
    "Anything",
    "Condition",
    "Optional",
    "Pattern",
    "Repeated",
    "Roots",
    "anything",
    "const",
    "op",
    "optional",
    "repeated",
    "roots",
]

Predicate = Callable[[Node, Any], bool]
Explain = Callable[[Node, Any], str]

ONE_USE = "len(users[{node}.name]) == 1"


@attrs.frozen(eq=False)
class Condition:
    """Something asked of a matched node. Where it does not hold, `reason` (or `explain(node, graph)`) says why."""

    reason: str
    holds: Predicate | str
    """`holds(node, graph)`; or an expression over `{node}`, `users` and `graph`, which saves the matcher a call."""
    explain: Explain | None = None


@attrs.frozen(eq=False)
class Pattern:
    """Base of all patterns. `|` gives alternatives, `["name"]` captures the node; the same name twice means the same value."""

    where: str = attrs.field(kw_only=True, factory=lambda: _caller())  # noqa: PLW0108  # _caller is defined below
    """File and line of the pattern's construction."""

    def __or__(self, other: Pattern) -> Alternatives:
        left = self.options if isinstance(self, Alternatives) else (self,)
        right = other.options if isinstance(other, Alternatives) else (other,)
        return Alternatives((*left, *right))

    def children(self) -> tuple[Pattern, ...]:
        """The sub-patterns."""
        return ()


@attrs.frozen(eq=False)
class Anything(Pattern):
    """Any value."""

    capture: str | None = None

    def __getitem__(self, name: str) -> Anything:
        return attrs.evolve(self, capture=name)


@attrs.frozen(eq=False)
class OpPattern(Pattern):
    """A node with one of some operations, fulfilling conditions, with patterns for its inputs."""

    ops: frozenset[str]
    label: str
    """What was asked for, in words: `BatchNorm`, `a linear op`."""
    inputs: tuple[Pattern, ...] | None = None
    """A pattern an input; None asks nothing of them."""
    every: Pattern | None = None
    """Variadic: a pattern for every input; captures in it are tuples."""
    commutes: bool = False
    capture: str | None = None
    conditions: tuple[Condition, ...] = ()

    def __call__(self, *inputs: Pattern) -> OpPattern:
        """Ask something of the inputs: one pattern each."""
        return attrs.evolve(self, inputs=inputs, every=None)

    def each(self, pattern: Pattern) -> OpPattern:
        """Ask the same of every input, however many."""
        return attrs.evolve(self, every=pattern, inputs=None)

    def commutative(self) -> OpPattern:
        """The inputs may come in any order."""
        return attrs.evolve(self, commutes=True)

    def __getitem__(self, name: str) -> OpPattern:
        return attrs.evolve(self, capture=name)

    def when(self, reason: str, holds: Predicate, explain: Explain | None = None) -> OpPattern:
        """Ask `holds(node, graph)`; `reason` says what is wrong when it does not hold."""
        return attrs.evolve(self, conditions=(*self.conditions, Condition(reason, holds, explain)))

    def only_use(self) -> OpPattern:
        """The node's outputs are used exactly once; a graph output counts as a use."""
        condition = Condition("it is used more than once", ONE_USE, explain_uses)
        return attrs.evolve(self, conditions=(*self.conditions, condition))

    def children(self) -> tuple[Pattern, ...]:
        """The sub-patterns."""
        return (*(self.inputs or ()), *((self.every,) if self.every else ()))


@attrs.frozen(eq=False)
class Alternatives(Pattern):
    """One of several patterns, tried in order."""

    options: tuple[Pattern, ...]

    def children(self) -> tuple[Pattern, ...]:
        """The sub-patterns."""
        return self.options


@attrs.frozen(eq=False)
class Optional(Pattern):
    """`wrapper(inner)`, or just `inner`; a capture of the wrapper is None when it is not there."""

    wrapper: OpPattern
    inner: Pattern

    def children(self) -> tuple[Pattern, ...]:
        """The sub-patterns."""
        return (self.wrapper, self.inner)


@attrs.frozen(eq=False)
class Repeated(Pattern):
    """As many nodes of `wrapper` as follow one another (maybe none), each feeding the one before, then `inner`."""

    wrapper: OpPattern
    inner: Pattern

    def children(self) -> tuple[Pattern, ...]:
        """The sub-patterns."""
        return (self.wrapper, self.inner)


@attrs.frozen(eq=False)
class Roots(Pattern):
    """Several different roots at once. The first is matched where the driver stands; each further one is found through a node that
    an earlier one captured.
    """

    patterns: tuple[OpPattern, ...]

    def children(self) -> tuple[Pattern, ...]:
        """The sub-patterns."""
        return self.patterns


def op(*names: str, trait: str | None = None) -> OpPattern:
    """A node with one of the named operations, or with a trait of the vocabulary."""
    if bool(names) == (trait is not None):
        raise ValueError("op() takes names of operations or trait=, one of the two")
    if trait is None:
        return OpPattern(frozenset(names), " or ".join(names))
    ops = ops_with_trait(trait)
    words = trait.replace("_", " ")
    pattern = OpPattern(ops, f"{'an' if words[0] in 'aeiou' else 'a'} {words} op")
    conditional = {name: VOCABULARY[name].conditional[trait] for name in ops if trait in VOCABULARY[name].conditional}
    if not conditional:
        return pattern

    def holds(node: Node, graph: Any) -> bool:
        condition = conditional.get(node.op)
        return condition is None or condition(node)

    return pattern.when(f"as configured it is not {words}", holds)


def anything() -> Anything:
    """Any value."""
    return Anything()


def const(reason: str = "it is not the constant asked for", value: Callable[[Any], bool] | None = None) -> OpPattern:
    """A `Const` node; `value` is asked of its array."""
    pattern = op("Const")
    return pattern if value is None else pattern.when(reason, lambda node, graph: value(graph.weights[node.params["value"]]))


def optional(wrapper: OpPattern, inner: Pattern) -> Optional:
    """`wrapper(inner)`, or just `inner`."""
    if wrapper.inputs is not None or wrapper.every is not None:
        raise ValueError("the wrapper of optional() takes no input patterns of its own")
    return Optional(wrapper, inner)


def repeated(wrapper: OpPattern, inner: Pattern) -> Repeated:
    """Any number of `wrapper` nodes in a chain, then `inner`. The wrapper has no captures: there may be many of it."""
    if wrapper.inputs is not None or wrapper.every is not None or wrapper.capture is not None:
        raise ValueError("the wrapper of repeated() takes neither input patterns nor a capture")
    return Repeated(wrapper, inner)


def roots(*patterns: OpPattern) -> Roots:
    """Several roots that share captured nodes."""
    bound: set[str] = set()
    for number, pattern in enumerate(patterns):
        own = set(captures(pattern))
        if number and not own & bound:
            raise ValueError(f"root {number + 1} shares no capture with the roots before it, so it cannot be found from them")
        bound |= own
    return Roots(patterns)


def captures(pattern: Pattern) -> Iterator[str]:
    """The names that a pattern captures, in the order of writing."""
    name = getattr(pattern, "capture", None)
    if name is not None:
        yield name
    for child in pattern.children():
        yield from captures(child)


def explain_uses(node: Node, graph: Any) -> str:
    uses = graph.users[node.name]
    names = [name if name != OUTPUT else "a graph output" for name, _ in islice(uses, SHOWN_USES)]
    more = f" and {len(uses) - SHOWN_USES} more" if len(uses) > SHOWN_USES else ""
    return f"it has {len(uses)} uses: {', '.join(names)}{more}"


def _caller() -> str:
    frame = sys._getframe(1)
    here = __file__
    while frame.f_back is not None and (frame.f_code.co_filename == here or frame.f_code.co_filename.startswith("<attrs")):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"

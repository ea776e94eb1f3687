"""The driver: rules over patterns, a worklist that re-matches at its head, in topological order, deterministic.

A match is used at once, on the graph as it is then: nothing is matched first and edited afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import attrs

from tfpasses.graph import OUTPUT, Edit, Graph, GraphError, Node, Rewrite
from tfpasses.pattern.compiler import Matcher
from tfpasses.pattern.dispatch import Around, ops_around
from tfpasses.pattern.language import OpPattern, Pattern, Repeated, Roots
from tfpasses.pattern.match import Match, Miss

__all__ = ["RewriteError", "RewriteLoopError", "Rule", "RuleSet", "find"]

Action = Callable[[Match, Edit], Miss | None]
Declined = dict[tuple[str, str], Miss]
"""(rule, root) -> what the rule said when it declined a match."""


class RewriteError(GraphError):
    """A rule raised. Its rewrite was rolled back; the message says which rule and where, the cause says what."""


class RewriteLoopError(RewriteError):
    """Rules that undo one another, or feed themselves: the worklist does not run empty."""


@attrs.frozen(eq=False)
class Rule:
    """A pattern and what to do where it matches: edit and return None, or return a `Miss` and leave the graph alone."""

    name: str
    matcher: Matcher
    action: Action

    @classmethod
    def of(cls, name: str, pattern: Pattern, action: Action) -> Rule:
        """A rule from a pattern that is not compiled yet."""
        return cls(name, Matcher(pattern), action)


Candidate = tuple[Callable[..., Any], Rule]
"""A compiled pattern that may match, and the rule it belongs to."""


FEW = 2
"""So many candidates are tried as fast as looked up."""


class Dispatch(dict[Around, tuple[Candidate, ...]]):
    """The candidates at a node, by the operations around it; filled in as these are met."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        super().__init__()
        self.rules = rules

    def __missing__(self, around: Around) -> tuple[Candidate, ...]:
        self[around] = found = tuple((function, rule) for rule in self.rules for function in rule.matcher.functions(around))
        return found


class ByRoot(dict[str, tuple[Candidate, ...]]):
    """All candidates at a root of an operation. Patterns are compiled when the first such root is met: many rules are never asked."""

    def __init__(self, around: Dispatch) -> None:
        super().__init__()
        self.around = around

    def __missing__(self, op: str) -> tuple[Candidate, ...]:
        self[op] = found = self.around[op, "", "", ""]
        return found


@attrs.define(eq=False, slots=False)
class RuleSet:
    """Rules applied together. Those whose root has the node's operation are tried there, in order; where they are many, only those that
    the operations around the node do not rule out.
    """

    rules: Sequence[Rule]

    @cached_property
    def _roots(self) -> frozenset[str]:
        """The operations that a pattern may match at."""
        return frozenset(op for rule in self.rules for op in rule.matcher.roots)

    @cached_property
    def _by_root(self) -> ByRoot:
        return ByRoot(self._around)

    @cached_property
    def _around(self) -> Dispatch:
        return Dispatch(self.rules)

    def matches(self, graph: Any) -> Iterator[tuple[Rule, Match]]:
        """All matches in a graph, without rewriting: the first rule that matches at each node."""
        nodes, users = graph.nodes, graph.users
        roots, by_root, by_around = self._roots, self._by_root, self._around
        for node in nodes.values():
            if node.op not in roots:
                continue
            candidates = by_root[node.op]
            if len(candidates) > FEW:
                candidates = by_around[ops_around(node, nodes)]
            for function, rule in candidates:
                refs = function(node, nodes, users, graph)
                if refs is not None:
                    yield rule, Match(node, refs, graph)
                    break

    def rewrite(self, edit: Edit, on_rewrite: Callable[[Rewrite], None] | None = None) -> Declined:
        """Apply the rules until none fires. Gives what the rules themselves declined, for `misses`.

        Raises `RewriteError` where a rule raises (rolled back to before it), `RewriteLoopError` where the rules do not end.
        """
        roots, by_root, by_around, nodes = self._roots, self._by_root, self._around, edit.nodes
        work = [node.name for node in nodes.values() if node.op in roots]
        work.reverse()
        waiting = set(work)
        owed: set[str] = set()
        declined: Declined = {}

        def push(names: dict[str, None]) -> None:
            for name in reversed(names):
                if name not in waiting and nodes[name].op in roots:
                    waiting.add(name)
                    work.append(name)

        budget = 16 * len(nodes) + 1024
        begun = len(edit.journal)  # other rules may have been at work before, when there was more to do
        users = edit.users
        edit.savepoint()
        while work:
            name = work.pop()
            waiting.discard(name)
            if owed and name in owed:
                owed.discard(name)
                if name in nodes:
                    above = self._downstream([name], edit, waiting, owed)
                    above.pop(name, None)
                    push(above)
            node = nodes.get(name)
            if node is None or node.op not in roots:  # removed, or changed, since it was put here
                continue
            candidates = by_root[node.op]
            if len(candidates) > FEW:
                candidates = by_around[ops_around(node, nodes)]
            fired = None
            for function, rule in candidates:
                refs = function(node, nodes, users, edit)
                if refs is None or rule is fired:
                    continue
                rewrite = self._apply(rule, Match(node, refs, edit), edit, declined)
                if rewrite is None:
                    continue
                if on_rewrite is not None:
                    on_rewrite(rewrite)
                if rewrite.number - begun > budget:
                    raise RewriteLoopError(f"{edit.made_by}: after {budget} rewrites the rules still fire, last {rewrite.rule} at {name}")
                push(self._downstream(rewrite.touched, edit, waiting, owed))
                if name in waiting or nodes.get(name) is not node:
                    break
                fired = rule  # it left its root alone: the other rules have their turn there
        return declined

    def misses(self, edit: Edit, declined: Declined) -> Iterator[tuple[Rule, Miss]]:
        """The near misses at the nodes that are left. Asked on the graph as it is left: no miss speaks of a graph that is gone."""
        for node in edit.nodes.values():
            for rule in dict.fromkeys(rule for _, rule in (self._by_root[node.op] if node.op in self._roots else ())):
                miss = rule.matcher.explain(node, edit) or declined.get((rule.name, node.name))
                if miss is not None:
                    yield rule, miss

    def _apply(self, rule: Rule, match: Match, edit: Edit, declined: Declined) -> Rewrite | None:
        try:
            miss = rule.action(match, edit)
        except Exception as error:
            edit.rollback()
            raise RewriteError(f"{edit.made_by or 'rewrite'}: rule {rule.name} failed at node {match.root.name}: {error}") from error
        if miss is not None:
            edit.rollback()
            declined[rule.name, match.root.name] = miss
            return None
        if declined:
            declined.pop((rule.name, match.root.name), None)
        return edit.commit(rule.name, match.root.name)

    def _downstream(self, touched: Iterable[str], edit: Edit, waiting: set[str], owed: set[str]) -> dict[str, None]:
        """The touched nodes, and those so few uses above them that a pattern reaches down to them: possible roots are among them."""
        for name in touched:
            if edit.nodes[name].op in self._asked:
                break
        else:
            return {}
        found = self._above(touched, edit, waiting, owed)
        new = found
        for _ in range(self._links):
            below = [name for name in new if edit.nodes[name].op in self._further]
            if not below:
                break
            # a further root of `roots` may be new here: the root before it is beside it, down to what they share and up again
            beside: dict[str, None] = {}
            for _ in range(self._reach):
                below = list(dict.fromkeys([ref.node for name in below for ref in edit.nodes[name].inputs]))
                beside |= self._above([*below, *(user for name in below for user, _ in edit.users[name] if user)], edit, waiting, owed)
            new = {name: None for name in beside if name not in found}
            found |= new
        return found

    def _above(self, names: Iterable[str], edit: Edit, waiting: set[str], owed: set[str]) -> dict[str, None]:
        """The nodes and what lies above them, as many uses as the highest pattern is high, of what a pattern asks for. A repeated
        wrapper that is waiting anyway is owed this walk when its turn comes: else a long chain of them would be walked to its end for
        each of them.
        """
        found: dict[str, None] = {}
        nodes, users, asked, wrappers = edit.nodes, edit.users, self._asked, self._wrappers
        front = list(names)
        for _ in range(self._reach + 1):
            beyond: list[str] = []
            for name in front:  # grows while it is walked: a repeated wrapper costs no reach
                node = nodes[name]
                if node.op not in asked or name in found:
                    continue
                found[name] = None
                into = beyond
                if node.op in wrappers and len(node.inputs) == 1:
                    if name in waiting:
                        owed.add(name)
                        continue
                    into = front
                for user, _ in users[name]:
                    if user != OUTPUT:
                        into.append(user)
            if not beyond:
                break
            front = beyond
        return found

    @cached_property
    def _reach(self) -> int:
        return max((height(rule.matcher.pattern) for rule in self.rules), default=0)

    @cached_property
    def _asked(self) -> frozenset[str]:
        """The operations that the patterns ask for: a node of another can be part of a match as a value only."""
        return frozenset(op for rule in self.rules for op in asked_ops(rule.matcher.pattern))

    @cached_property
    def _wrappers(self) -> frozenset[str]:
        return frozenset(op for rule in self.rules for op in wrapper_ops(rule.matcher.pattern))

    @cached_property
    def _several(self) -> list[Roots]:
        return [several for rule in self.rules for several in several_roots(rule.matcher.pattern)]

    @cached_property
    def _links(self) -> int:
        """The most roots that a pattern has after its first."""
        return max((len(several.patterns) - 1 for several in self._several), default=0)

    @cached_property
    def _further(self) -> frozenset[str]:
        """The operations of the roots after the first."""
        return frozenset(op for several in self._several for root in several.patterns[1:] for op in root.ops)


def height(pattern: Pattern) -> int:
    """How many steps lie between a pattern's root and its deepest node."""
    return max((1 + height(child) for child in pattern.children()), default=0)


def asked_ops(pattern: Pattern) -> Iterator[str]:
    """All operations in a pattern."""
    if isinstance(pattern, OpPattern):
        yield from pattern.ops
    for child in pattern.children():
        yield from asked_ops(child)


def wrapper_ops(pattern: Pattern) -> Iterator[str]:
    """The operations that a `repeated` steps over."""
    if isinstance(pattern, Repeated):
        yield from pattern.wrapper.ops
    for child in pattern.children():
        yield from wrapper_ops(child)


def several_roots(pattern: Pattern) -> Iterator[Roots]:
    """The `roots` among a pattern's alternatives."""
    if isinstance(pattern, Roots):
        yield pattern
    for child in pattern.children():
        yield from several_roots(child)


def find(graph: Graph | Edit, pattern: Pattern) -> Iterator[Match]:
    """Every match of a pattern in a graph, in topological order, without rewriting."""
    matcher = Matcher(pattern)
    node: Node
    for node in graph.nodes.values():
        match = matcher.match(node, graph)
        if match is not None:
            yield match

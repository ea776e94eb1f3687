"""Patterns compiled to Python functions.

Every pattern becomes one straight function over local variables: a check that fails leaves the innermost choice (`continue`)
or the function (`return`); a choice (commutative inputs, alternatives, further roots) is a loop around all that comes after
it, so backtracking is complete and the code is as large as the pattern, never exponential. The same generator makes the
fast function, which records nothing, and the explaining one, which appends each failed check to a list.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cached_property
from typing import Any

import attrs

from tfpasses.graph import Node, Ref
from tfpasses.pattern.dispatch import Around, may_match
from tfpasses.pattern.language import (
    Alternatives,
    Anything,
    Condition,
    OpPattern,
    Optional,
    Pattern,
    Repeated,
    Roots,
    captures,
)
from tfpasses.pattern.match import Match, Miss

__all__ = ["Matcher"]

Emit = Callable[[], None]


@attrs.frozen(eq=False)
class Check:
    """A place where a match can fail."""

    pattern: Pattern
    explain: Callable[[Node, Any], str]


@attrs.define(eq=False, slots=False)
class Matcher:
    """A pattern, compiled on first use."""

    pattern: Pattern
    names: tuple[str, ...] = attrs.field(init=False)
    roots: dict[str, tuple[int, ...]] = attrs.field(init=False)
    """Root operation -> the numbers of the alternatives that can match there."""

    def __attrs_post_init__(self) -> None:
        self.names = tuple(dict.fromkeys(captures(self.pattern)))
        self._options = list(root_options(self.pattern))
        self.roots = {}
        for number, option in enumerate(self._options):
            first = option.patterns[0] if isinstance(option, Roots) else option
            for name in sorted(first.ops):
                self.roots[name] = (*self.roots.get(name, ()), number)

    @cached_property
    def _fast(self) -> list[Callable[..., Any]]:
        return [Generator(option, self.names, explaining=False).function() for option in self._options]

    @cached_property
    def _explaining(self) -> list[Callable[..., Any]]:
        return [Generator(option, self.names, explaining=True).function() for option in self._options]

    def match(self, node: Node, graph: Any) -> Match | None:
        """The first match at this node, or None. Costs the size of the pattern, whatever the size of the graph."""
        for number in self.roots.get(node.op, ()):
            refs = self._fast[number](node, graph.nodes, graph.users, graph)
            if refs is not None:
                return Match(node, refs, graph)
        return None

    def functions(self, around: Around) -> list[Callable[..., Any]]:
        """The compiled functions that may match at a node with these operations around it, in the order of the alternatives.

        `f(node, graph.nodes, graph.users, graph)` gives the captures, or None.
        """
        return [self._fast[number] for number in self.roots.get(around[0], ()) if may_match(self._options[number], around)]

    def explain(self, node: Node, graph: Any) -> Miss | None:
        """Why the pattern does not match at this node: the deepest check that failed. None where it matches or the operation is another."""
        failed: list[tuple[int, Check, Node]] = []
        for number in self.roots.get(node.op, ()):
            if self._explaining[number](node, graph.nodes, graph.users, graph, failed) is not None:
                return None
        if not failed:
            return None
        depth, check, culprit = max(failed, key=lambda entry: entry[0])
        return Miss(
            node.name,
            culprit.name,
            depth,
            lambda: ("" if culprit is node else f"{culprit.name}: ") + check.explain(culprit, graph),
            pattern=check.pattern.where,
        )


def root_options(pattern: Pattern) -> list[OpPattern | Roots]:
    """The alternatives at the root, each with known operations to dispatch on."""
    if isinstance(pattern, Alternatives):
        return [option for part in pattern.options for option in root_options(part)]
    if isinstance(pattern, OpPattern | Roots):
        return [pattern]
    if isinstance(pattern, Optional):
        return [*root_options(pattern.wrapper(pattern.inner)), *root_options(pattern.inner)]
    raise ValueError("the root of a pattern must be an operation: op(..), alternatives of them, or roots(..)")


class Generator:
    """Writes the source of one matching function."""

    def __init__(self, pattern: Pattern, names: tuple[str, ...], *, explaining: bool) -> None:
        self.pattern, self.names, self.explaining = pattern, names, explaining
        self.lines: list[str] = []
        self.indent = 1
        self.jump = "return None"
        self.depth = 0
        self.bound: dict[str, str] = {}
        self.maybe: set[str] = set()
        self.roots = ["n0"]
        self.checks: list[Check] = []
        self.pending: list[tuple[Pattern, str, Condition]] = []
        self.scope: dict[str, Any] = {"Ref": Ref, "new": tuple.__new__, "permutations": itertools.permutations}
        self.counter = itertools.count()

    def function(self) -> Callable[..., Any]:
        """The compiled function."""
        parameters = "n0, nodes, users, graph, failed" if self.explaining else "n0, nodes, users, graph"
        first, rest = (self.pattern.patterns[0], self.pattern.patterns[1:]) if isinstance(self.pattern, Roots) else (self.pattern, ())
        assert isinstance(first, OpPattern)
        self.node(first, "n0", first_output("n0"), lambda: self.further_roots(rest, self.succeed))
        source = f"def match({parameters}):\n" + "\n".join(self.lines) + "\n"
        self.scope["checks"] = self.checks
        try:
            exec(compile(source, f"<pattern at {self.pattern.where}>", "exec"), self.scope)
        except SyntaxError as error:  # Python nests 20 loops at most
            raise ValueError(
                f"{self.pattern.where}: more choices (commutative inputs, alternatives, optional nodes) than one pattern can hold; split it"
            ) from error
        function: Callable[..., Any] = self.scope["match"]
        return function

    def succeed(self) -> None:
        self.ask_pending()
        pairs = ", ".join(f"{name!r}: {self.bound.get(name, 'None')}" for name in self.names)
        self.line(f"return {{{pairs}}}")

    # writing

    def line(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    def fresh(self, prefix: str) -> str:
        return f"{prefix}{next(self.counter) + 1}"

    def keep(self, value: Any, prefix: str = "k") -> str:
        name = self.fresh(prefix)
        self.scope[name] = value
        return name

    def fail_unless(self, condition: str, pattern: Pattern, node: str, explain: Callable[[Node, Any], str]) -> None:
        self.depth += 1
        if self.explaining:
            self.checks.append(Check(pattern, explain))
            self.line(f"if not ({condition}):")
            self.line(f"    failed.append(({self.depth}, checks[{len(self.checks) - 1}], {node}))")
            self.line(f"    {self.jump}")
        else:
            self.line(f"if not ({condition}): {self.jump}")

    def condition(self, condition: Condition, node: str) -> str:
        """The condition as an expression."""
        if isinstance(condition.holds, str):
            return condition.holds.format(node=node)
        return f"{self.keep(condition.holds)}({node}, graph)"

    def loop(self, header: str, body: Emit) -> None:
        """A choice: `body` (and all that follows in it) is tried for every value; none of them succeeding fails what is around."""
        self.ask_pending()
        outer, depth = self.jump, self.depth
        self.line(header)
        self.indent, self.jump = self.indent + 1, "continue"
        body()
        self.indent, self.jump, self.depth = self.indent - 1, outer, depth
        self.line(outer)

    # patterns

    def value(self, pattern: Pattern, ref: str, user: str, then: Emit) -> None:
        """Match the value in variable `ref`, an input of the node in variable `user`; then go on with `then`."""
        if isinstance(pattern, Anything):
            self.capture(pattern.capture, ref, pattern, user, then)
        elif isinstance(pattern, OpPattern):
            node = self.fresh("n")
            self.line(f"{node} = nodes[{ref}.node]")
            self.one_of(pattern, node)
            self.node(pattern, node, ref, then)
        elif isinstance(pattern, Repeated):
            self.repeated(pattern, ref, user, then)
        elif isinstance(pattern, Alternatives):
            self.choose(pattern.options, ref, user, then)
        elif isinstance(pattern, Optional):
            self.optional(pattern, ref, user, then)
        else:
            raise ValueError(f"{type(pattern).__name__} cannot stand for an input")

    def one_of(self, pattern: OpPattern, node: str) -> None:
        label = pattern.label
        condition = f"{node}.op == {next(iter(pattern.ops))!r}" if len(pattern.ops) == 1 else f"{node}.op in {self.keep(pattern.ops)}"
        self.fail_unless(condition, pattern, node, lambda n, _: f"it is {n.op}, not {label}")

    def node(self, pattern: OpPattern, node: str, ref: str, then: Emit) -> None:
        """Match the node in variable `node`, whose operation is known to fit."""
        arity = None if pattern.inputs is None else len(pattern.inputs)
        if arity is not None:
            self.fail_unless(f"len({node}.inputs) == {arity}", pattern, node, lambda n, _: f"it has {len(n.inputs)} inputs, not {arity}")
        self.pending.extend((pattern, node, condition) for condition in pattern.conditions)
        if self.explaining:
            self.ask_pending()
        self.capture(pattern.capture, ref, pattern, node, lambda: self.inputs(pattern, node, then))

    def ask_pending(self) -> None:
        """Ask the conditions of the nodes so far. The fast function does so when operations and wiring fit, which is where most tries
        end, and before a choice, so that each is asked once.
        """
        pending, self.pending = self.pending, []
        for pattern, node, condition in pending:
            reason, explain = condition.reason, condition.explain
            self.fail_unless(
                self.condition(condition, node),
                pattern,
                node,
                lambda n, g, reason=reason, explain=explain: explain(n, g) if explain else reason,  # type: ignore[misc]
            )

    def capture(self, name: str | None, ref: str, pattern: Pattern, node: str, then: Emit) -> None:
        if name is None:
            then()
        elif name in self.bound:
            known = self.bound[name]
            same = f"{known} is None or {ref} == {known}" if known in self.maybe else f"{ref} == {known}"
            self.fail_unless(same, pattern, node, lambda n, _: f"it is not the same node as the other {name!r}")
            self.bound[name] = ref
            then()
            self.bound[name] = known
        else:
            self.bound[name] = ref
            then()
            del self.bound[name]

    def inputs(self, pattern: OpPattern, node: str, then: Emit) -> None:
        if pattern.every is not None:
            self.every(pattern.every, node, then)
        elif not pattern.inputs:
            then()
        elif pattern.commutes and len(pattern.inputs) > 1:
            refs = [self.fresh("r") for _ in pattern.inputs]
            orders = f"({node}.inputs, {node}.inputs[::-1])" if len(refs) == 2 else f"permutations({node}.inputs)"
            self.loop(f"for {', '.join(refs)} in {orders}:", lambda: self.sequence(pattern.inputs or (), refs, node, then))
        else:
            refs = [self.fresh("r") for _ in pattern.inputs]
            self.line(f"{', '.join(refs)}, = {node}.inputs")
            self.sequence(pattern.inputs, refs, node, then)

    def sequence(self, patterns: tuple[Pattern, ...], refs: list[str], node: str, then: Emit) -> None:
        if not patterns:
            then()
        else:
            self.value(patterns[0], refs[0], node, lambda: self.sequence(patterns[1:], refs[1:], node, then))

    def repeated(self, pattern: Repeated, ref: str, user: str, then: Emit) -> None:
        here, node = self.fresh("r"), self.fresh("n")
        holds = [f"{node}.op in {self.keep(pattern.wrapper.ops)}", f"len({node}.inputs) == 1"]
        holds += [self.condition(condition, node) for condition in pattern.wrapper.conditions]
        self.line(f"{here} = {ref}; {node} = nodes[{here}.node]")
        self.line(f"while {' and '.join(holds)}:")
        self.line(f"    {here} = {node}.inputs[0]; {node} = nodes[{here}.node]")
        if self.explaining:
            self.why_not_repeated(pattern.wrapper, node)
        self.value(pattern.inner, here, user, then)

    def optional(self, pattern: Optional, ref: str, user: str, then: Emit) -> None:
        """Below the wrapper, or here: the inner pattern is compiled once for both."""
        below = Anything(f"<{self.fresh('below')}>")
        options = (pattern.wrapper(below), below)
        self.choose(options, ref, user, lambda: self.value(pattern.inner, self.bound[str(below.capture)], user, then))

    def why_not_repeated(self, wrapper: OpPattern, node: str) -> None:
        """A node that would have been stepped over but for a condition: that is the nearer reason, if what follows fails on it."""
        for asked in wrapper.conditions:
            reason, explain = asked.reason, asked.explain
            self.checks.append(
                Check(wrapper, lambda n, g, reason=reason, explain=explain: explain(n, g) if explain else reason)  # type: ignore[misc]
            )
            self.line(f"if {node}.op in {self.keep(wrapper.ops)} and not ({self.condition(asked, node)}):")
            self.line(f"    failed.append(({self.depth + 2}, checks[{len(self.checks) - 1}], {node}))")

    def choose(self, options: tuple[Pattern, ...], ref: str, user: str, then: Emit) -> None:
        """Alternatives: a generator gives the captures of each option that matches, and what follows is tried for each."""
        self.ask_pending()
        names = tuple(dict.fromkeys(name for option in options for name in captures(option)))
        new = [name for name in names if self.bound.get(name) in {None, *self.maybe}]
        variables = {name: self.fresh("c") for name in new}
        options_of = self.fresh("options")
        self.line(f"def {options_of}({ref}, {user}):")
        self.indent += 1
        outer_jump, outer_depth, deepest = self.jump, self.depth, self.depth
        for option in options:
            self.line("while True:")
            self.indent, self.jump, self.depth = self.indent + 1, "break", outer_depth
            self.value(option, ref, user, lambda: self.leave(f"yield {self._tuple(new)}"))
            self.line("break")
            self.indent -= 1
            deepest = max(deepest, self.depth)
        self.indent, self.jump, self.depth = self.indent - 1, outer_jump, deepest
        target = f"{', '.join(variables.values())}," if variables else "_"

        def body() -> None:
            outer = dict(self.bound)
            self.bound.update(variables)
            self.maybe.update(variables.values())  # None where the option taken has no such capture
            then()
            self.bound = outer

        self.loop(f"for {target} in {options_of}({ref}, {user}):", body)

    def leave(self, statement: str) -> None:
        self.ask_pending()
        self.line(statement)

    def _tuple(self, names: list[str]) -> str:
        return "(" + "".join(f"{self.bound.get(name, 'None')}, " for name in names) + ")"

    def every(self, pattern: Pattern, node: str, then: Emit) -> None:
        self.ask_pending()
        names = [name for name in dict.fromkeys(captures(pattern)) if name not in self.bound]
        test, ref, found = self.fresh("each"), self.fresh("r"), self.fresh("f")
        self.line(f"def {test}({ref}, {node}):")
        outer_jump = self.jump
        self.indent, self.jump = self.indent + 1, "return None"
        self.value(pattern, ref, node, lambda: self.leave(f"return {self._tuple(names)}"))
        self.indent, self.jump = self.indent - 1, outer_jump
        self.line(f"{found} = []")
        self.line(f"for {ref} in {node}.inputs:")
        self.line(f"    {found}.append({test}({ref}, {node}))")
        self.line(f"    if {found}[-1] is None: break")
        self.line(f"if {found} and {found}[-1] is None: {self.jump}")
        variables = {name: self.fresh("c") for name in names}
        for position, variable in enumerate(variables.values()):
            self.line(f"{variable} = tuple(e[{position}] for e in {found})")
        self.bound.update(variables)
        then()
        for name in variables:
            del self.bound[name]

    def further_roots(self, patterns: tuple[OpPattern, ...], then: Emit) -> None:
        """Walk from a captured node up to the candidates for the next root, and match it there."""
        if not patterns:
            then()
            return
        pattern, rest = patterns[0], patterns[1:]
        steps, anchor = path_to_bound(pattern, self.bound)
        found = self.bound[anchor]
        self.fail_unless(f"type({found}) is Ref", pattern, "n0", lambda n, _: f"{anchor} captured no single node to go on from")
        self.climb(f"{found}.node", steps, lambda root: self.another_root(pattern, root, lambda: self.further_roots(rest, then)))

    def climb(self, name: str, steps: int, then: Callable[[str], None]) -> None:
        """Try all nodes that lie `steps` uses above the node whose name the expression `name` gives."""
        if steps == 0:
            then(name)
            return
        user = self.fresh("u")
        self.loop(f"for {user} in dict.fromkeys(use[0] for use in users[{name}] if use[0]):", lambda: self.climb(user, steps - 1, then))

    def another_root(self, pattern: OpPattern, name: str, then: Emit) -> None:
        node = self.fresh("n")
        self.line(f"{node} = nodes[{name}]")
        self.one_of(pattern, node)
        self.fail_unless(f"{node} not in ({', '.join(self.roots)},)", pattern, node, lambda n, _: "it is a root already")
        self.roots.append(node)
        self.node(pattern, node, first_output(node), then)
        self.roots.pop()


def first_output(node: str) -> str:
    """An expression for the first output of the node in a variable, made where it is used: at most calls it is not."""
    return f"new(Ref, ({node}.name, 0))"  # what Ref(name, 0) does, in a third of its time


def path_to_bound(pattern: Pattern, bound: Any) -> tuple[int, str]:
    """How many steps below a pattern's root the nearest capture lies that is bound already, and its name."""
    name = getattr(pattern, "capture", None)
    if name in bound:
        return 0, str(name)
    if not isinstance(pattern, OpPattern | Anything):
        raise ValueError("between a further root and the capture it shares there may be plain op patterns only")
    below = []
    for child in pattern.children():
        if set(captures(child)) & set(bound):
            below.append(path_to_bound(child, bound))
    if not below:
        raise ValueError("a further root shares no capture with the roots before it")
    steps, name = min(below)
    return steps + 1, name

"""A pass: a frozen class whose fields are its options and whose docstring is the equation, the preconditions and the source."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar

import attrs

from tfpasses.graph import Edit, Evaluator, Rewrite
from tfpasses.manager.contract import Contract, Effect
from tfpasses.manager.samples import Samples
from tfpasses.manager.workers import Workers
from tfpasses.pattern import Match, Matcher, Miss, Pattern, Rule, RuleSet

__all__ = ["Context", "Pass", "Remark", "rule"]


@attrs.frozen
class Remark:
    """Something a pass has to say about a node."""

    pass_name: str
    kind: str
    """`missed` (a near miss, with its reason) or `note`."""
    node: str
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.pass_name}: {self.node}: {self.reason}" + (f" ({self.remedy})" if self.remedy else "")


@attrs.frozen
class Context:
    """What a pass may use besides the graph."""

    evaluator: Evaluator | None = None
    data: Samples | None = None
    """What the user gave as the model's inputs: of several workers, this one's part."""
    workers: Workers | None = None
    """Where several processes run the pipeline together."""
    on_rewrite: Callable[[Rewrite], None] = lambda _: None
    on_progress: Callable[[int, int | None], None] = lambda done, whole: None
    """To be told how many steps of how many (where that is known) are done, of what takes long."""


RULE = "__tfpasses_rule__"
Method = Callable[[Any, Match, Edit], Miss | None]


def rule(pattern: Pattern) -> Callable[[Method], Method]:
    """Declare a method of a pass as the action of a rule: it edits where the pattern matches and returns None, or returns a `Miss`."""

    def declare(method: Method) -> Method:
        setattr(method, RULE, Matcher(pattern))
        return method

    return declare


class Pass:
    """Base of all passes. A subclass is `@attrs.frozen`, has a name, a contract, and rules; one without rules overrides `apply`."""

    name: ClassVar[str]
    contract: ClassVar[Contract]

    @property
    def effect(self) -> Effect:
        """What this very pass does to the function: what its contract says, where no option says otherwise."""
        return self.contract.effect

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, in the order of writing, those of base classes first."""
        methods: dict[str, Any] = {}
        for cls in reversed(type(self).__mro__):
            methods.update({name: method for name, method in vars(cls).items() if hasattr(method, RULE)})
        return tuple(Rule(name, getattr(method, RULE), partial(method, self)) for name, method in methods.items())

    def apply(self, edit: Edit, context: Context) -> Iterable[Remark]:
        """Rewrite the graph; give the remarks: a near miss at every node that a rule might have fired at and did not."""
        rules = RuleSet(self.rules)
        declined = rules.rewrite(edit, context.on_rewrite)
        for _, miss in rules.misses(edit, declined):
            yield Remark(self.name, "missed", miss.root, miss.reason, miss.remedy)

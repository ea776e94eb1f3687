"""What a pass promises: its effect on the function, what it needs, gives and breaks, and where in the order it belongs."""

from __future__ import annotations

import enum
from collections.abc import Callable

import attrs

from tfpasses.graph import Fact, Graph

__all__ = ["Contract", "Effect", "Property", "Requirement"]


class Effect(enum.Enum):
    """What a pass does to the function that the graph computes."""

    EXACT = "bit-equal"
    REASSOCIATES = "equal in real arithmetic; differs by rounding"
    APPROXIMATES = "changes the function, and says how far"
    NEEDS_DATA = "changes the function by what calibration data say"

    @property
    def preserves(self) -> bool:
        """Whether numeric verification applies."""
        return self in (Effect.EXACT, Effect.REASSOCIATES)


@attrs.frozen
class Property:
    """Something that holds of a graph or not, such as having no batch norm left."""

    name: str
    meaning: str
    holds: Callable[[Graph], bool]


Requirement = type[Fact] | Property


def _set(value: object) -> frozenset[Requirement]:
    return frozenset(value)  # type: ignore[call-overload,no-any-return]  # a converter takes any iterable


@attrs.frozen
class Contract:
    """The contract of a pass. The manager plans by it and verifies the effect."""

    effect: Effect
    requires: frozenset[Requirement] = attrs.field(default=(), converter=_set)
    provides: frozenset[Requirement] = attrs.field(default=(), converter=_set)
    breaks: frozenset[Requirement] = attrs.field(default=(), converter=_set)
    """Properties that may no longer hold afterwards; facts of these kinds that the pass did not renew are dropped."""
    after: tuple[str, ...] = ()
    """Names of passes that go first where both are in a pipeline."""
    reads_data: bool = False
    """Whether it looks at the data that the user gives. A pass whose effect is `NEEDS_DATA` cannot do without."""


def requirement_name(requirement: Requirement) -> str:
    """How a requirement is called in messages."""
    return requirement.name if isinstance(requirement, Property) else requirement.kind


def fulfilled(requirement: Requirement, graph: Graph) -> bool:
    """Whether a graph has the property, or any fact of the kind."""
    if isinstance(requirement, Property):
        return requirement.holds(graph)
    return any(True for _ in graph.facts_of(requirement))

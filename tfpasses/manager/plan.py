"""Planning: put the passes in an order that their contracts allow, or refuse before anything runs."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from tfpasses.graph import Graph
from tfpasses.manager.contract import Effect, Requirement, fulfilled, requirement_name
from tfpasses.manager.errors import PipelineError, RegistryError
from tfpasses.manager.passes import Pass
from tfpasses.manager.registry import registered_passes

__all__ = ["plan"]


def plan(passes: Sequence[Pass], graph: Graph, *, has_data: bool = True) -> list[Pass]:
    """The passes in the given order, moved only where `after`, or a requirement that a later pass provides, asks for it.

    Raises `PipelineError` where the order is circular, a requirement is neither fulfilled by the graph nor provided by a pass before, or a
    pass needs data and there are none.
    """
    needy = next((item for item in passes if item.effect is Effect.NEEDS_DATA), None)
    if needy is not None and not has_data:
        raise PipelineError(f"pass {needy.name} needs data: samples of the model's inputs (data=.., --data)")
    ordered = [passes[number] for number in _sort(passes, _edges(passes, graph))]
    state: dict[Requirement, bool] = {}
    broken_by: dict[Requirement, Pass] = {}
    for item in ordered:
        for need in sorted(item.contract.requires, key=requirement_name):
            if not state.setdefault(need, fulfilled(need, graph)):
                raise PipelineError(_refusal(item, need, broken_by.get(need)))
        for lost in item.contract.breaks:
            state[lost], broken_by[lost] = False, item
        for given in item.contract.provides:
            state[given] = True
    return ordered


def _edges(passes: Sequence[Pass], graph: Graph) -> list[set[int]]:
    """For every pass, the numbers of those that must go before it."""
    before: list[set[int]] = [set() for _ in passes]
    for number, item in enumerate(passes):
        for name in set(item.contract.after) - {item.name}:
            before[number] |= _first_named(name, number, passes)
        for need in item.contract.requires:
            providers = [i for i, other in enumerate(passes) if need in other.contract.provides and i != number]
            earlier = [i for i in providers if i < number]
            if earlier:
                before[number].add(earlier[-1])
            elif providers and not fulfilled(need, graph):
                before[number].add(providers[0])
    return before


def _first_named(name: str, number: int, passes: Sequence[Pass]) -> set[int]:
    """The passes of that name written before pass `number`; where there are none, the first one written after it."""
    named = [i for i, other in enumerate(passes) if other.name == name and i != number]
    return {i for i in named if i < number} or set(named[:1])


def _sort(passes: Sequence[Pass], before: list[set[int]]) -> list[int]:
    """A topological order that stays with the given one where it can."""
    after: list[list[int]] = [[] for _ in passes]
    waiting = [len(needed) for needed in before]
    for number, needed in enumerate(before):
        for other in needed:
            after[other].append(number)
    ready = [number for number, count in enumerate(waiting) if count == 0]
    order = []
    while ready:
        number = heapq.heappop(ready)
        order.append(number)
        for other in after[number]:
            waiting[other] -= 1
            if waiting[other] == 0:
                heapq.heappush(ready, other)
    if len(order) < len(passes):
        names = [passes[number].name for number, count in enumerate(waiting) if count]
        raise PipelineError(f"the order of {', '.join(names)} is circular: each must go after another; run them in two pipelines")
    return order


def _refusal(item: Pass, need: Requirement, breaker: Pass | None) -> str:
    what = f"pass {item.name} requires {requirement_name(need)}"
    if breaker is not None:
        return f"{what}, which {breaker.name} before it breaks; put {item.name} first"
    try:
        providers = [name for name, cls in registered_passes().items() if need in cls.contract.provides]
    except RegistryError:
        providers = []
    remedy = f"put {' or '.join(providers)} before it" if providers else "no known pass provides it"
    facts = ", or load facts saved by an earlier run" if isinstance(need, type) else ""
    return f"{what}, which the graph does not have and no pass before it provides; {remedy}{facts}"

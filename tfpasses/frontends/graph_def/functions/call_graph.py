"""Which functions call which: what is recursive, how large something is with all that it calls, whether it does more than give values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs

from tfpasses.frontends.graph_def.functions.function_defs import functions_in, op_def

__all__ = ["CALLS", "HANDLES", "Standing", "acts", "is_stateful", "standings"]

CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf", "Case", "StatelessCase", "While", "StatelessWhile"})
"""The operations that do what the functions in their attributes do, and nothing else."""
HANDLES = frozenset({"VarHandleOp", "Variable", "VariableV2"})
"""The operations that a variable is."""
QUIET = HANDLES | {"ReadVariableOp", "VarIsInitializedOp", "ResourceGather", "LookupTableFindV2", "LookupTableSizeV2", "Multinomial"}
RANDOM = ("Random", "TruncatedNormal", "ParameterizedTruncatedNormal", "StatefulRandomBinomial")
"""What TensorFlow calls stateful, and which does nothing that anyone could see but give its values."""


@attrs.frozen
class Standing:
    """What is known of a function in view of those that it calls."""

    recursive: bool
    size: int
    """Its nodes with those of all functions that they name, as often as they do."""
    acts: bool
    """Whether it does more than give its values: writes a variable, prints, checks something."""


OPAQUE = Standing(True, 1, True)


def standings(functions: Mapping[str, Any]) -> dict[str, Standing]:
    """The standing of every function, by name. Linear in the size of the functions."""
    named = {name: Counter(callees(definition.node_def, functions)) for name, definition in functions.items()}
    callers: dict[str, list[str]] = {name: [] for name in functions}
    for name, called in named.items():
        for other in called:
            callers[other].append(name)
    order = peeled(named, callers)
    cyclic = [name for name in functions if name not in order]
    # what is on no cycle, but calls what is: taken off from the other end
    inside = set(cyclic)
    above = peeled({name: [one for one in callers[name] if one in inside] for name in cyclic}, named)
    found = {name: OPAQUE for name in cyclic if name not in above}
    for name in (*order, *reversed(above)):
        size = 1 + sum(many * found[other].size for other, many in named[name].items()) + len(functions[name].node_def)
        found[name] = Standing(False, size, any(acts(one, functions, found.__getitem__) for one in functions[name].node_def))
    return found


def peeled(before: Mapping[str, Iterable[str]], after: Mapping[str, Iterable[str]]) -> dict[str, None]:
    """The names that have all that comes before them peeled before them, in that order. Others are on a cycle, or come after one."""
    waiting = {name: len(list(others)) for name, others in before.items()}
    done = [name for name, many in waiting.items() if not many]
    for name in done:  # grows while it is walked
        for other in after[name]:
            if other in waiting:
                waiting[other] -= 1
                if not waiting[other]:
                    done.append(other)
    return dict.fromkeys(done)


def callees(nodes: Iterable[Any], functions: Mapping[str, Any]) -> Iterator[str]:
    """The functions that nodes name, as often as they do."""
    for one in nodes:
        if one.op in functions:
            yield one.op
        for value in one.attr.values():
            for function in functions_in(value):
                if function.name in functions:
                    yield function.name


def acts(one: Any, functions: Mapping[str, Any], standing: Callable[[str], Standing]) -> bool:
    """Whether a NodeDef does more than give its values; one of an unknown operation may."""
    if one.op in functions:
        return standing(one.op).acts
    if one.op in CALLS:
        named = [function.name for value in one.attr.values() for function in functions_in(value)]
        return any(name not in functions or standing(name).acts for name in named)
    definition = op_def(one.op)
    return definition is None or (definition.is_stateful and one.op not in QUIET and not one.op.startswith(RANDOM))


def is_stateful(one: Any, functions: Mapping[str, Any], standing: Callable[[str], Standing]) -> bool:
    """Whether somebody may wait for a NodeDef to have run: where it acts, or reads what others write."""
    definition = op_def(one.op)
    return (definition is not None and definition.is_stateful and one.op not in HANDLES) or acts(one, functions, standing)

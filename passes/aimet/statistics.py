"""What a session knows of its values when its batch norms are gone: it goes with the session, in a collection of its graph.

The collection is a record of what was done, in order: a batch norm was folded into a layer, a layer's output was scaled, its bias moved.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from tfpasses.graph import Array, ChannelStats, Graph, Ref
from tfpasses.passes.aimet.sessions import sources

__all__ = ["folded_operations", "folded_statistics", "remember", "remember_moved", "remember_scaled", "statistics", "with_statistics"]

COLLECTION = "tfpasses/channel_statistics"
OPERATIONS = "operations"


def remember(session: Any, graph: Graph) -> Any:
    """Let a session know what its batch norms, which are gone, have left behind; gives the session."""
    for ref, fact in graph.facts_of(ChannelStats):
        if isinstance(fact, ChannelStats):
            names = [one.name for one in sources(graph.nodes[ref.node])]
            record(session, ref.node, names, mean=fact.mean, std=fact.std)
    return session


def remember_scaled(session: Any, names: Iterable[str], scale: Array) -> None:
    """Let it know that what some nodes give was divided by a scale, one number a channel."""
    for name in names:
        record(session, name, scale=scale)


def remember_moved(session: Any, names: Iterable[str], shift: Array) -> None:
    """Let it know that what some nodes give became less by a shift, one number a channel."""
    for name in names:
        record(session, name, shift=shift)


def record(session: Any, name: str, operations: Sequence[str] = (), **arrays: Array) -> None:
    """One line more; a graph that is finalized takes it, too, since no operation is added."""
    told = {key: np.asarray(array, np.float64).tolist() for key, array in arrays.items()}
    text = json.dumps({"node": name, **({OPERATIONS: list(operations)} if operations else {}), **told})
    session.graph.get_collection_ref(COLLECTION).append(text)


def recorded(session: Any) -> Iterator[tuple[Ref, dict[str, Array]]]:
    """The record."""
    for one in map(json.loads, session.graph.get_collection(COLLECTION)):
        yield Ref(one.pop("node")), {key: np.array(numbers) for key, numbers in one.items() if key != OPERATIONS}


def folded_operations(session: Any) -> Mapping[str, frozenset[str]]:
    """The operations that nodes stood for when batch norms were folded into them: those of a new session may have other names."""
    told = map(json.loads, session.graph.get_collection(COLLECTION))
    return {one["node"]: frozenset(one[OPERATIONS]) for one in told if OPERATIONS in one}


def folded_statistics(session: Any) -> Mapping[Ref, ChannelStats]:
    """What a session knew of its values when batch norms were folded."""
    return {ref: ChannelStats(told["mean"], told["std"]) for ref, told in recorded(session) if "mean" in told}


def statistics(session: Any) -> Mapping[Ref, ChannelStats]:
    """What a session knows of its values as they are now: scaled, and with their biases moved."""
    found: dict[Ref, ChannelStats] = {}
    for ref, told in recorded(session):
        if "mean" in told:
            found[ref] = ChannelStats(told["mean"], told["std"])
        elif ref in found:
            scale, shift = told.get("scale", np.ones(1)), told.get("shift", np.zeros(1))
            found[ref] = ChannelStats(found[ref].mean / scale - shift, found[ref].std / scale)
    return found


def with_statistics(graph: Graph, session: Any) -> Graph:
    """A graph that was read from a session, with what that knows of the values in it."""
    known = {(ref, ChannelStats.kind): stats for ref, stats in statistics(session).items() if ref.node in graph.nodes}
    return attrs.evolve(graph, facts={**graph.facts, **known})

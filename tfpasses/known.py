"""What is known of a model's values, kept in a file beside it: for which graph, and under which names.

Facts are about values that passes see. Of operations of TensorFlow these are what `canonicalize` makes of them: the values within the
functions of a SavedModel have names only then, and the functions themselves other ones with each reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from tfpasses.graph import Fact, FactsError, Graph, Ref, load_facts, save_facts
from tfpasses.manager import Pipeline, run_passes

__all__ = ["CANONICALIZE", "Facts", "check_facts", "has_operations", "read_facts", "rename_facts", "write_facts"]

Facts = Mapping[tuple[Ref, str], Fact]
CANONICALIZE = "canonicalize"
"""The pass that lets all others see what operations of a `tf.Graph` are; it goes first where a pipeline does not name it."""


def has_operations(graph: Graph) -> bool:
    """Whether there are operations of TensorFlow in a graph that no pass has raised."""
    return any(node.op.startswith("tf.") for node in graph.nodes.values())


def seen(graph: Graph) -> Graph:
    """A graph as passes see it."""
    return run_passes(graph, Pipeline.of(CANONICALIZE)) if has_operations(graph) else graph


def read_facts(path: str | Path, graph: Graph) -> Facts:
    """The facts in a file about a graph, as it was read. Raises `FactsError` where the file is none of facts, or of another model's."""
    return load_facts(path, seen(graph))


def write_facts(path: str | Path, facts: Facts, written: Graph) -> None:
    """Write facts about a model, which was read again as a graph: what a function of a SavedModel holds has the name of its call in front.

    Raises `FactsError` for a value that is not in it, such as a Keras layer's in a SavedModel.
    """
    whole = seen(written)
    names = {}
    for ref, _ in facts:
        found = [name for name in (ref.node, *(f"{call}/{ref.node}" for call in written.nodes)) if name in whole.nodes]
        if not found:
            raise FactsError(f"{path}: facts about {ref.node} cannot be kept, since the model that was written has no such node")
        names[ref.node] = found[0]
    save_facts(path, attrs.evolve(whole, facts=rename_facts(facts, names)))


def rename_facts(facts: Facts, names: Mapping[str, str]) -> dict[tuple[Ref, str], Fact]:
    """The facts under the names that nodes have when the written model is read again."""
    return {(Ref(names.get(ref.node, ref.node), ref.index), kind): fact for (ref, kind), fact in facts.items()}


def check_facts(facts: Any) -> dict[tuple[Ref, str], Fact]:
    """Facts by value and kind, or a clear refusal."""
    if not isinstance(facts, Mapping):
        raise FactsError(f"facts are of type {type(facts).__name__}; give the facts of a graph, or the file that an earlier run saved")
    for key, fact in facts.items():
        if not (isinstance(fact, Fact) and isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], Ref) and key[1] == fact.kind):
            raise FactsError(f"facts hold {key!r}: {fact!r}; a fact stands under its value and kind, (Ref(node), fact.kind)")
    return dict(facts)

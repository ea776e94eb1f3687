"""Is a graph well-formed, and does every node have the shape that its operation gives? Both linear in the graph's size."""

from __future__ import annotations

from collections.abc import Sequence

from tfpasses.graph.errors import GraphError, ShapeError
from tfpasses.graph.graph import Graph
from tfpasses.graph.node import Node
from tfpasses.graph.ops import VOCABULARY
from tfpasses.graph.shapes import infer_shape
from tfpasses.graph.values import Spec, slots

__all__ = ["check_shapes", "check_structure"]


def check_structure(graph: Graph) -> None:
    """Raise `GraphError` where a name, an input, an output, a parameter, the order or a call's slots do not fit."""
    seen: dict[str, int] = {}
    for name, node in graph.nodes.items():
        if name != node.name:
            raise GraphError(f"node {node.name} is filed under the name {name}")
        for ref in node.inputs:
            if ref.node not in seen:
                where = "comes later in the order (or on a cycle)" if ref.node in graph.nodes else "is not in the graph"
                raise GraphError(f"node {name}: input {ref} {where}")
            if not 0 <= ref.index < seen[ref.node]:
                raise GraphError(f"node {name}: input {ref} does not exist, {ref.node} has {seen[ref.node]} outputs")
        if node.call is not None and sorted(set(slots([node.call.args, dict(node.call.kwargs)]))) != list(range(len(node.inputs))):
            raise GraphError(f"node {name}: its call does not use its {len(node.inputs)} inputs one for one")
        _check_params(graph, node)
        seen[name] = len(node.specs)
    for ref in graph.outputs:
        if ref.node not in seen or not 0 <= ref.index < seen[ref.node]:
            raise GraphError(f"graph output {ref} is not in the graph")
    for name in graph.inputs:
        if name not in graph.nodes or graph.nodes[name].op != "Input":
            raise GraphError(f"graph input {name} is not an Input node")
    for (ref, kind), _ in graph.facts.items():
        if ref.node not in seen:
            raise GraphError(f"fact {kind} is about {ref}, which is not in the graph")


def _check_params(graph: Graph, node: Node) -> None:
    for slot, key in node.params.items():
        if key not in graph.weights:
            raise GraphError(f"node {node.name}: its {slot} is weight {key}, which is not in the graph")
    entry = VOCABULARY.get(node.op)
    if entry is None:
        return
    known = {slot.rstrip("?") for slot in entry.slots}
    needed = {slot for slot in entry.slots if not slot.endswith("?")}
    if not needed <= set(node.params) <= known:
        raise GraphError(
            f"node {node.name}: {node.op} takes parameters {', '.join(entry.slots) or 'none'}, it has {', '.join(node.params) or 'none'}"
        )


def check_shapes(graph: Graph, before: Graph | None = None) -> None:
    """Raise `ShapeError` where a canonical node's recorded shape is not the inferred one, or where, against the graph
    `before`, an opaque node is fed or an output given with another shape or dtype than it was. A shape may be known better than it was.
    """
    for node in graph.nodes.values():
        shapes = [graph.spec(ref).shape for ref in node.inputs]
        inferred = infer_shape(node, shapes, {slot: graph.weights[key].shape for slot, key in node.params.items()})
        if inferred is not None:
            recorded = node.specs[0].shape
            if recorded is None:
                continue
            if len(recorded) != len(inferred) or any(
                a != b for a, b in zip(recorded, inferred, strict=True) if a is not None and b is not None
            ):
                raise ShapeError(f"node {node.name}: {node.op} gives shape {inferred}, {recorded} is recorded")
        elif before is not None and node.name in before.nodes and before.nodes[node.name].op == node.op:
            was = [before.spec(ref) for ref in before.nodes[node.name].inputs]
            now = [graph.spec(ref) for ref in node.inputs]
            if not same_or_better(was, now):
                raise ShapeError(f"node {node.name}: {node.op} was fed {', '.join(map(str, was))}, now {', '.join(map(str, now))}")
    if before is not None:
        was, now = [before.spec(ref) for ref in before.outputs], [graph.spec(ref) for ref in graph.outputs]
        if not same_or_better(was, now):
            raise ShapeError(f"the outputs were {', '.join(map(str, was))}, now {', '.join(map(str, now))}")


def same_or_better(was: Sequence[Spec], now: Sequence[Spec]) -> bool:
    """Whether values have the dtypes that they had, and shapes that say all that was said, or more."""
    return len(was) == len(now) and all(map(is_as_before, was, now))


def is_as_before(was: Spec, now: Spec) -> bool:
    if was.dtype != now.dtype or was.shape is None or now.shape is None:
        return was.dtype == now.dtype and was.shape is None
    return len(was.shape) == len(now.shape) and all(a in (None, b) for a, b in zip(was.shape, now.shape, strict=True))

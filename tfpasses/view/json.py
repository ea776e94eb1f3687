"""Graphs and runs as JSON, for other programs. The schema of a graph is in docs/graph.schema.json; `version` rises when it changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import numpy as np

from tfpasses.graph import Graph, Node, Ref
from tfpasses.graph.text import format_value
from tfpasses.manager import PassRecord, Remark, Verdict

__all__ = ["GRAPH_VERSION", "RUN_VERSION", "graph_json", "run_json"]

GRAPH_VERSION = 1
RUN_VERSION = 1


def graph_json(graph: Graph) -> dict[str, Any]:
    """The graph without its weights' values: nodes in topological order, wiring, shapes, weights' shapes and ranges, facts."""
    return {
        "format": "tfpasses-graph",
        "version": GRAPH_VERSION,
        "name": graph.name,
        "inputs": list(graph.inputs),
        "outputs": [{**ref_json(ref), "name": name} for ref, name in zip(graph.outputs, output_names(graph), strict=True)],
        "nodes": [node_json(node) for node in graph.nodes.values()],
        "weights": {key: weight_json(array) for key, array in graph.weights.items()},
        "facts": [
            {"about": ref_json(ref), "kind": kind, **{field.name: getattr(fact, field.name).tolist() for field in attrs.fields(type(fact))}}
            for (ref, kind), fact in graph.facts.items()
        ],
    }


def output_names(graph: Graph) -> Iterator[str]:
    yield from graph.output_names or map(str, graph.outputs)


def ref_json(ref: Ref) -> dict[str, Any]:
    return {"node": ref.node, "index": ref.index}


def node_json(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "op": node.op,
        "inputs": [ref_json(ref) for ref in node.inputs],
        "config": {key: plain(value) for key, value in node.config.items()},
        "params": dict(node.params),
        "outputs": [{"shape": list(spec.shape), "dtype": spec.dtype} for spec in node.specs],
        "origin": list(node.origin),
        "made_by": node.made_by,
    }


def weight_json(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Shape, dtype and range; the range is null where no value is finite."""
    values = np.asarray(array, np.float64) if array.dtype.kind not in "OSU" else np.empty(0)
    finite = values[np.isfinite(values)]
    ends = {"min": float(finite.min()), "max": float(finite.max())} if finite.size else {"min": None, "max": None}
    return {"shape": list(array.shape), "dtype": array.dtype.name, **ends}


def plain(value: Any) -> Any:
    """A configuration value in JSON's types; what has none is written as text. Numbers that JSON lacks become text too."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | int | float | bool) else format_value(value)


def run_json(
    pipeline: str, records: tuple[PassRecord, ...], timings: tuple[tuple[str, float], ...], remarks: tuple[Remark, ...], verdicts: tuple[Verdict, ...]
) -> dict[str, Any]:
    """What a run did: passes with their rewrites, remarks, and what numeric verification measured."""
    return {
        "format": "tfpasses-run",
        "version": RUN_VERSION,
        "pipeline": pipeline,
        "passes": [
            {
                "name": record.pass_.name,
                "seconds": seconds,
                "nodes_before": len(record.before.nodes),
                "nodes_after": len(record.after.nodes),
                "rewrites": [
                    {
                        "number": rewrite.number,
                        "rule": rewrite.rule,
                        "root": rewrite.root,
                        "made": list(rewrite.made),
                        "changed": list(rewrite.changed),
                        "removed": list(rewrite.removed),
                        "notes": plain(rewrite.payload),
                    }
                    for rewrite in record.journal
                ],
            }
            for record, (_, seconds) in zip(records, timings, strict=True)
        ],
        "remarks": [attrs.asdict(remark) for remark in remarks],
        "verification": [{**attrs.asdict(verdict), "ok": verdict.ok} for verdict in verdicts],
    }

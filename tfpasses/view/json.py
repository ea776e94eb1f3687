"""Graphs and runs as JSON, for other programs. The schema of a graph is in docs/graph.schema.json; `version` rises when it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import attrs
import numpy as np

from tfpasses.graph import Array, Fact, Graph, Node, Ref
from tfpasses.graph.text import format_value
from tfpasses.manager import NamedPipeline, Pass, PassRecord, Remark, Verdict, options_of, type_name

__all__ = ["graph_json", "list_json", "run_json", "verify_json"]

GRAPH_VERSION = 1
RUN_VERSION = 1
LIST_VERSION = 1
VERIFY_VERSION = 1


def graph_json(graph: Graph) -> dict[str, Any]:
    """The graph without its weights' values: nodes in topological order, wiring, shapes, weights' shapes and ranges, facts."""
    names = graph.output_names or tuple(map(str, graph.outputs))
    return {
        "format": "tfpasses-graph",
        "version": GRAPH_VERSION,
        "name": graph.name,
        "digest": graph.digest,
        "inputs": list(graph.inputs),
        "outputs": [{**ref_json(ref), "name": name} for ref, name in zip(graph.outputs, names, strict=True)],
        "nodes": [node_json(node) for node in graph.nodes.values()],
        "scopes": {
            path: {
                "layer": scope.layer,
                "inputs": [ref_json(ref) for ref in scope.inputs],
                "outputs": [ref_json(ref) for ref in scope.outputs],
            }
            for path, scope in graph.scopes.items()
        },
        "weights": {key: weight_json(array) for key, array in graph.weights.items()},
        "facts": [{"about": ref_json(ref), "kind": kind, "values": fact_json(fact)} for (ref, kind), fact in graph.facts.items()],
    }


def ref_json(ref: Ref) -> dict[str, Any]:
    return {"node": ref.node, "index": ref.index}


def node_json(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "op": node.op,
        "inputs": [ref_json(ref) for ref in node.inputs],
        "config": {key: plain(value) for key, value in sorted(node.config.items())},
        "params": dict(node.params),
        "outputs": [{"shape": None if spec.shape is None else list(spec.shape), "dtype": spec.dtype} for spec in node.specs],
        "layer": node.owner.layer if node.owner is not None else None,
        "origin": list(node.origin),
        "made_by": node.made_by,
    }


def weight_json(array: Array) -> dict[str, Any]:
    """Shape, dtype, the range of the finite values (null where there are none), and how many are not finite."""
    numeric = array.dtype.kind in "biufV"  # V: bfloat16 and its like
    values = array.astype(np.float64) if numeric else np.empty(0)
    finite = values[np.isfinite(values)]
    ends = {"min": float(finite.min()), "max": float(finite.max())} if finite.size else {"min": None, "max": None}
    return {"shape": list(array.shape), "dtype": array.dtype.name, **ends, "not_finite": values.size - finite.size}


def fact_json(fact: Fact) -> dict[str, Any]:
    """A fact's arrays by the names of its fields."""
    return {field.name: plain(getattr(fact, field.name).tolist()) for field in attrs.fields(type(fact))}


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
    pipeline: str,
    records: tuple[PassRecord, ...],
    timings: tuple[tuple[str, float], ...],
    remarks: tuple[Remark, ...],
    verdicts: tuple[Verdict, ...],
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
        "verification": [plain({**attrs.asdict(verdict), "ok": verdict.ok}) for verdict in verdicts],
    }


def verify_json(differences: Sequence[Any]) -> dict[str, Any]:
    """How far the outputs of two models are apart (`OutputDifference`s)."""
    return {
        "format": "tfpasses-verify",
        "version": VERIFY_VERSION,
        "ok": all(difference.ok for difference in differences),
        "outputs": [plain({**attrs.asdict(difference), "ok": difference.ok}) for difference in differences],
    }


def list_json(passes: Mapping[str, type[Pass]], pipelines: Mapping[str, type[NamedPipeline]] = MappingProxyType({})) -> dict[str, Any]:
    """Passes and named pipelines with their options; defaults are spelled as a pipeline spells them."""
    return {
        "format": "tfpasses-list",
        "version": LIST_VERSION,
        "passes": [{**entry(name, cls), "effect": cls.contract.effect.value} for name, cls in passes.items()],
        "pipelines": [entry(name, cls) for name, cls in pipelines.items()],
    }


def entry(name: str, cls: type[Pass | NamedPipeline]) -> dict[str, Any]:
    options = {}
    for option, (kind, default) in options_of(cls).items():
        spelled = None if default in (None, attrs.NOTHING) else str(default).lower() if isinstance(default, bool) else str(default)
        options[option] = {"type": type_name(kind), "default": spelled, "required": default is attrs.NOTHING}
    summary = (cls.__doc__ or "").strip().partition("\n")[0]
    return {"name": name, "summary": summary, "options": options}

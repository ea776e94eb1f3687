"""Bias correction of a session's graph, as AIMET does it: its two quantizers, its choice of layers, and what it is told to ignore."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import attrs

from tfpasses.graph import Edit, Evaluator, Graph, LinearView, Node
from tfpasses.manager import Context
from tfpasses.passes.aimet.quant_params import BiasCorrectionParams, QuantParams
from tfpasses.passes.aimet.sessions import linear_node
from tfpasses.passes.correction.analytical import shifts
from tfpasses.passes.correction.biases import biased, needed
from tfpasses.passes.correction.empirical import Measuring, measured_shifts
from tfpasses.passes.correction.shifts import take

__all__ = ["NAME", "context_of", "corrected_graph", "evaluator_of", "ignored_nodes"]

NAME = "bias correction"


def context_of(graph: Graph, data_set: Any) -> Context:
    """What runs a graph, and its data. Raises `DataError` for data that do not fit its inputs."""
    from tfpasses.data import samples_of

    return Context(evaluator_of(graph), samples_of(graph, data_set))


def evaluator_of(graph: Graph) -> Evaluator:
    """What runs a graph that was read from a session."""
    from tfpasses.frontends.graph_def import graph_def_evaluator

    return graph_def_evaluator(graph)


def ignored_nodes(quant_params: QuantParams, session: Any, graph: Graph) -> list[Node]:
    """The linear nodes of a session's graph that are to be ignored. Raises `ValueError` for names that the session does not have."""
    found = []
    for name in quant_params.ignored:
        try:
            operation = session.graph.get_operation_by_name(name)
        except (KeyError, ValueError):
            raise ValueError(f"ops_to_ignore names {name}, which is no operation of the session's graph") from None
        try:
            found.append(linear_node(operation, graph))
        except ValueError:  # an activation, say: none is quantized
            continue
    return found


def kernel_keys(nodes: Sequence[Node], graph: Graph) -> list[str]:
    """The keys of some linear nodes' kernels."""
    return [node.params[view.slot] for node in nodes for view in LinearView.of(node, graph).kernels]


def corrected_graph(
    graph: Graph,
    context: Context,
    params: BiasCorrectionParams,
    quant_params: QuantParams,
    ignored: Sequence[Node],
    without_data: Collection[str],
) -> tuple[Graph, list[str]]:
    """A graph with all biases corrected, and what there is to warn of, a line each.

    Layers of which `without_data` names a node are corrected by statistics, as far as those are known, with weights quantized
    asymmetrically; all others on data, in order, each with all before it corrected, with weights quantized symmetrically.
    """
    path, left = needed(graph), {node.name for node in ignored}
    layers = [
        layer for layer in biased(graph) if not (names := {node.name for node in layer.nodes}).isdisjoint(path) and left.isdisjoint(names)
    ]
    warned = []
    wanted = [layer for layer in layers if not layer.reason and any(node.name in without_data for node in layer.nodes)]
    known = []
    for shift in shifts(graph, quant_params.quantizer(symmetric=False), layers=wanted):
        if shift.known.all():
            known.append(shift)
        else:
            warned.append(f"{shift.layer.name}: it is corrected on data, since nothing tells what it reads on average: {shift.reason}")
    measuring = Measuring.of(graph, quant_params.quantizer(symmetric=True), layers, context, params.samples)
    floating = {key: graph.weights[key] for key in kernel_keys(ignored, graph)}
    measuring.quantized = attrs.evolve(measuring.quantized, weights={**measuring.quantized.weights, **floating})
    found = measured_shifts(measuring, layers, "sequential", known)
    edit = Edit(graph, made_by=NAME)
    warned += [remark.reason for remark in measuring.remarks(NAME)]
    warned += [f"{remark.node}: {remark.reason}" for remark in take(found, NAME, "", edit, context) if remark.kind == "missed"]
    return edit.freeze(), warned

"""What quantized kernels add to each layer's output on average, from statistics that are known without data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tfpasses.graph import Array, Edit, Graph, LinearView, Node
from tfpasses.passes.correction.biases import Biased, biased
from tfpasses.passes.correction.expectations import Expectations
from tfpasses.passes.correction.moments import Moments
from tfpasses.passes.correction.responses import change
from tfpasses.passes.correction.shifts import Shift
from tfpasses.passes.correction.taps import border_unknown, tap_means
from tfpasses.passes.quantization.kernels import Kernel, kernels
from tfpasses.passes.quantization.quantizer import Quantizer

__all__ = ["shifts"]


def shifts(
    graph: Graph | Edit, quantizer: Quantizer, inputs: Mapping[str, Array] | None = None, layers: Sequence[Biased] | None = None
) -> list[Shift]:
    """The shift of every layer (or of some): (sum over taps and input channels of (Wq - W)·E[x]), E[x] as `Expectations` has it.

    `inputs` are the means of the graph's inputs, as layouts. The graph's kernels are those before quantization.
    """
    expected = Expectations.of(graph, inputs)
    held = {one.key: one for one in kernels(graph, quantizer)}
    return [shift(layer, held, quantizer, expected, graph) for layer in (biased(graph) if layers is None else layers)]


def shift(layer: Biased, held: Mapping[str, Kernel], quantizer: Quantizer, expected: Expectations, graph: Graph | Edit) -> Shift:
    """The shift of one layer; `held` are the graph's kernels by key."""
    read = {node.params[view.slot]: held[node.params[view.slot]] for node in layer.nodes for view in LinearView.of(node, graph).kernels}
    reason = next(filter(None, [layer.reason, *(kernel.reason for kernel in read.values())]), "")
    if reason:
        return Shift(layer, np.full(LinearView.of(layer.nodes[0], graph).out_channels, np.nan), reason)
    quantized = {key: quantizer.quantized(kernel.array, kernel.axes, key) for key, kernel in read.items()}
    each, assumes = [], set[str]()
    for node in layer.nodes:
        known = expected.values.get(node.inputs[0])
        each.append(shift_at(node, quantized, known, graph))
        assumes.update(known.assumes if known is not None else ())
        if np.isnan(each[-1]).any():
            reason = reason or expected.reason(node.inputs[0])
    borderless = any(border_unknown(node, graph) for node in layer.nodes)
    on_grid = all(np.array_equal(quantized[key], kernel.array) for key, kernel in read.items())
    return Shift(layer, np.mean(each, axis=0), reason, frozenset(assumes), borderless, on_grid)


def shift_at(node: Node, quantized: Mapping[str, Array], known: Moments | None, graph: Graph | Edit) -> Array:
    """The shift at one use of a layer; `known` is what is known of its input."""
    view = LinearView.of(node, graph)
    if known is None:
        return np.full(view.out_channels, np.nan)
    new = {kernel.slot: quantized[node.params[kernel.slot]] for kernel in view.kernels}
    return change(view, new, tap_means(node, known.mean, graph))

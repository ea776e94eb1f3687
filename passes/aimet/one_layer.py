"""One layer of a session that is to be corrected in place: where its bias is, what it gives, and what quantized weights add to that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np

from tfpasses.graph import Array, Evaluator, Graph, LinearView, Ref, TfpassesError
from tfpasses.manager import Context
from tfpasses.passes.aimet.corrected import NAME
from tfpasses.passes.aimet.sessions import bias_of, last_of, linear_node, operation_of, sources, stored
from tfpasses.passes.correction.analytical import shifts
from tfpasses.passes.correction.biases import Biased, biased, needed
from tfpasses.passes.correction.empirical import Measuring
from tfpasses.passes.equalization.constants import in_dtype
from tfpasses.passes.quantization.quantizer import Quantizer, unsuitable

__all__ = ["OneLayer", "analytical_shift", "measured_shift"]


@attrs.frozen(eq=False)
class OneLayer:
    """A layer in the graph of a session."""

    graph: Graph
    name: str
    """What it is called in errors: the node that gives its value."""
    values: Mapping[Ref, int]
    """What it gives at each of its uses, with its bias and before an activation -> the axis of the channels."""
    bias: str
    """The key of its bias among the graph's weights, empty where it has none."""
    layer: Biased | None
    """The linear nodes that add that bias; None where operations make the kernel of a variable, as in a simulation of quantization."""

    @classmethod
    def of(cls, operation: Any, session: Any, graph: Graph) -> OneLayer:
        """The layer that an operation of a name is part of, in a session and the graph that was read from it.

        Raises `ValueError` where the session has no such operation, or it is part of no layer.
        """
        found = operation_of(operation, session)
        try:
            node = linear_node(found, graph)
        except ValueError:
            last = last_of(found)
            name = "" if bias_of(last) is None else stored(bias_of(last)).name
            if last.name not in graph.nodes or name not in graph.nodes or graph.nodes[name].op != "Variable":
                raise
            axis = 1 if last.type == "BiasAdd" and last.get_attr("data_format").startswith(b"NC") else -1
            return cls(graph, last.name, {Ref(last.name): axis}, graph.nodes[name].config["weight"], None)
        layer = next(one for one in biased(graph) if node in one.nodes)
        values = {Ref(one.name): LinearView.of(one, graph).channel_axis(len(one.specs[0].dims)) for one in layer.nodes}
        return cls(graph, node.name, values, node.params.get("bias", ""), layer)

    def correctable(self) -> OneLayer:
        """The same. Raises `TfpassesError` where it has no bias, or one that cannot change."""
        if not self.bias:
            remedy = "BiasUtils.initialize_model_with_bias gives a session in which it has one"
            raise TfpassesError(f"{self.name} has no bias in corrected_model; {remedy}")
        if self.layer is not None and self.layer.reason:
            raise TfpassesError(f"{self.name} cannot be corrected: {self.layer.reason}")
        return self

    def corrected(self, shift: Array) -> Graph:
        """The graph with a shift taken from the bias. Raises `TfpassesError` where that would not be finite."""
        before = self.graph.weights[self.bias]
        bias = in_dtype(np.asarray(before, np.float64) - shift.reshape(before.shape), before.dtype.name)
        if not np.isfinite(bias).all():
            raise TfpassesError(f"{self.name} cannot be corrected: its bias would not be finite in its dtype")
        return attrs.evolve(self.graph, weights={**self.graph.weights, self.bias: bias})

    def float_layer(self) -> Biased:
        """The linear nodes. Raises `TfpassesError` where there are none."""
        if self.layer is None:
            raise TfpassesError(
                f"{self.name} multiplies with what operations make of its kernel, so that this one cannot be quantized here"
            )
        return self.layer

    def quantized(self, quantizer: Quantizer) -> Graph:
        """The graph with the layer's kernels quantized. Raises `TfpassesError` where they cannot be."""
        weights = dict(self.graph.weights)
        for node in self.float_layer().nodes:
            for view in LinearView.of(node, self.graph).kernels:
                reason, key = unsuitable(view.kernel), node.params[view.slot]
                if reason:
                    raise TfpassesError(f"{self.name} cannot be quantized: {reason}")
                weights[key] = quantizer.quantized(view.kernel, view.out_axes, key)
        return attrs.evolve(self.graph, weights=weights)


def analytical_shift(one: OneLayer, quantizer: Quantizer) -> Array:
    """What quantized kernels add to a layer's output on average, by statistics. Raises `TfpassesError` where those are not known."""
    (found,) = shifts(one.graph, quantizer, layers=[one.float_layer()])
    if not found.known.all():
        raise TfpassesError(f"{one.name} cannot be corrected without data: {found.reason}")
    return found.values


def measured_shift(
    one: OneLayer, reference: Graph, quantizer: Quantizer | None, context: Context, evaluator: Evaluator, samples: int
) -> tuple[Array, list[str]]:
    """What a layer gives more than that of the same operations in `reference` on average over data and places, and what there is to warn
    of. With a quantizer, it has quantized kernels. `context` is that of the layer's graph, `evaluator` the reference's.

    Raises `TfpassesError` where the two give the same and nothing was quantized, or what is no number.
    """
    path = needed(one.graph)
    values = {ref: axis for ref, axis in one.values.items() if ref.node in path}
    if not values:
        raise TfpassesError(f"{one.name} does not lie between the given operations: the outputs do not need it")
    graph = one.graph if quantizer is None else one.quantized(quantizer)
    others = {counterpart(ref, one.graph, reference): axis for ref, axis in values.items()}
    measuring = Measuring(graph, graph, {}, context, samples)
    assert context.evaluator is not None
    runs = [(context.evaluator, graph, values), (evaluator, reference, others)]
    steps = [each.trace(whole, [Ref(name) for name in whole.inputs], [], list(refs)) for each, whole, refs in runs]
    sums = [[ChannelSum() for _ in refs] for _, _, refs in runs]
    for batch in measuring.batches():
        for step, (_, _, refs), each in zip(steps, runs, sums, strict=True):
            for one_sum, axis, total in zip(each, refs.values(), step(batch)[1], strict=True):
                one_sum.add(*total, axis)
    ours, theirs = ([one_sum.mean for one_sum in each] for each in sums)
    if quantizer is None and all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)):
        raise TfpassesError(
            f"reference_model and corrected_model are identical as far as {one.name}, which gives the same in both: quantize "
            "corrected_model's weights, or say by quant_params= how that layer's are to be quantized"
        )
    shift = np.mean([a - b for a, b in zip(ours, theirs, strict=True)], axis=0)
    if not np.isfinite(shift).all():
        raise TfpassesError(f"{one.name} cannot be corrected: what it gives on these data is not finite")
    return shift, [remark.reason for remark in measuring.remarks(NAME)]


def counterpart(ref: Ref, graph: Graph, reference: Graph) -> Ref:
    """The value of the operations of the same name in another session's graph: with the bias, where one has it and the other has not.

    Raises `TfpassesError` where there is none.
    """
    path = needed(reference)
    names = {one.name for one in sources(graph.nodes[ref.node]) if one.op not in READING}
    for node in reference.nodes.values():
        if node.name in path and not names.isdisjoint(one.name for one in sources(node) if one.op not in READING):
            return Ref(node.name)
    raise TfpassesError(f"reference_model has no layer {ref.node} between the given operations")


READING = ("Const", "Variable", "tf.Const", "tf.ReadVariableOp", "tf.Identity", "tf.VarHandleOp", "tf.VariableV2")
"""What of a layer's operations others may read too."""


@attrs.define(eq=False)
class ChannelSum:
    """The sum of each channel of a value over samples and places, float64, and how many these are."""

    sum: Array = attrs.field(factory=lambda: np.zeros(1))
    count: int = 0

    def add(self, total: Array, samples: int, axis: int) -> None:
        """Add a sum over so many samples, the value's channels being along an axis."""
        channels = np.moveaxis(total, axis - (axis > 0), -1)
        rows = channels.reshape(-1, channels.shape[-1])
        self.sum = self.sum + rows.sum(axis=0, dtype=np.float64)
        self.count += samples * len(rows)

    @property
    def mean(self) -> Array:
        """The mean of each channel."""
        return self.sum / self.count

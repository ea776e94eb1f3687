"""Between which bounds each channel of a value lies, whatever the input: interval arithmetic in float64.

Bounds come from clips, from kernels whose weights are zero, and from what is told of the inputs. Where they are one number, the channel
is constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import attrs
import numpy as np

from tfpasses.graph import Array, Edit, Graph, KernelView, LinearView, Node, Ref, channel_axis, has_trait
from tfpasses.manager.rounding import unit
from tfpasses.passes.equalization.constants import constant_value, in_dtype, is_number
from tfpasses.passes.equalization.layouts import along, concatenated, flattened, reshaped, rows
from tfpasses.passes.folding.paths import misplaces_bias, pads_zeros

__all__ = ["Interval", "Intervals"]

UNKNOWN = (-math.inf, math.inf)


@attrs.frozen(eq=False)
class Interval:
    """Bounds of a value, each laid out as `layouts` says; both of one shape."""

    low: Array
    high: Array

    @property
    def constant(self) -> Array:
        """The number that each place always is, NaN where that is not one."""
        return np.where((self.low == self.high) & np.isfinite(self.low), self.low, np.nan)

    def each(self, function: Callable[[Array], Array]) -> Interval:
        """After a function that never falls."""
        return Interval(function(self.low), function(self.high))

    def hull(self, number: float) -> Interval:
        """What lies between these bounds, or is a number."""
        return Interval(np.minimum(self.low, number), np.maximum(self.high, number))


@attrs.frozen(eq=False)
class Intervals:
    """The bounds of the values of a graph, of those whose axes are known."""

    values: Mapping[Ref, Interval]
    small: Mapping[str, Array]
    """For layers with channels that are constant but for rounding: for each channel, how large the part is that was left out."""

    @classmethod
    def of(cls, graph: Graph | Edit, inputs: tuple[float, float] = UNKNOWN) -> Intervals:
        """The bounds of everything, the inputs' own being given."""
        survey = Survey(graph, inputs)
        for node in graph.nodes.values():
            found = survey.bounds(node)
            if found is not None:
                survey.values[Ref(node.name)] = found
        return cls(survey.values, survey.small)

    def above(self, ref: Ref, layout: Array) -> Array:
        """The upper bound of a value, to be broadcast against a layout of it."""
        found = self.values.get(ref)
        return np.full((1,) * layout.ndim, math.inf) if found is None else found.high


class Survey:
    """One walk over a graph in topological order."""

    def __init__(self, graph: Graph | Edit, inputs: tuple[float, float]) -> None:
        self.graph = graph
        self.inputs = inputs
        self.values: dict[Ref, Interval] = {}
        self.small: dict[str, Array] = {}

    def everything(self, ref: Ref, bounds: tuple[float, float] = UNKNOWN) -> Interval | None:
        """A value of which nothing is known but perhaps its bounds."""
        shape = self.graph.spec(ref).shape
        if shape is None or "float" not in self.graph.spec(ref).dtype:
            return None
        ones = np.ones((1,) * max(len(shape) - 1, 0))
        return Interval(ones * bounds[0], ones * bounds[1])

    def bounds(self, node: Node) -> Interval | None:
        """The bounds of a node's first output; None where its axes are not known, or it is no float."""
        ref = Ref(node.name)
        if node.op == "Input":
            return self.everything(ref, self.inputs)
        if node.op == "Const" or not node.specs:  # an operation that gives nothing, such as NoOp
            return None
        spec = self.graph.spec(ref)
        if spec.shape is None or "float" not in spec.dtype:
            return None
        layouts = [self.values[one] for one in node.inputs if one in self.values]
        consts = [one for one in node.inputs if self.graph.nodes[one.node].op == "Const" and is_number(self.graph.nodes[one.node])]
        if len(layouts) == len(node.inputs) or (node.op in JOINS and layouts and len(layouts) + len(consts) == len(node.inputs)):
            found = self.linear(node, layouts[0]) if has_trait(node, "linear") else RULES.get(node.op, unknown)(self, node, layouts)
            if found is not None:
                return found
        low, high = IMAGES.get(node.op, UNKNOWN)
        return self.everything(ref, (low, high))

    def operand(self, ref: Ref, rank: int) -> Interval:
        """The bounds of what a node of several inputs reads, laid out for a value of so many axes, as which it is broadcast."""
        node = self.graph.nodes[ref.node]
        if node.op != "Const":
            found = self.values[ref]
            shape = (1,) * (rank - 1 - found.low.ndim) + found.low.shape
            return Interval(found.low.reshape(shape), found.high.reshape(shape))
        whole = constant_value(node, self.graph)
        whole = whole.reshape((1,) * (rank - whole.ndim) + whole.shape)
        return Interval(whole.min(axis=0), whole.max(axis=0))

    def linear(self, node: Node, read: Interval) -> Interval | None:
        """A kernel's sums: what is read with positive weights from one bound, with negative ones from the other."""
        graph = self.graph
        view = LinearView.of(node, graph)
        if view.bias is not None and misplaces_bias(node, graph):
            return None
        axis, rank = channel_axis(node, len(graph.spec(node.inputs[0]).dims)), len(graph.spec(Ref(node.name)).dims)
        count = view.in_channels
        low, high = rows(read.low, axis, count).min(axis=0), rows(read.high, axis, count).max(axis=0)
        if pads_zeros(node, graph):
            low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
        for kernel in view.kernels:
            low, high = sums(kernel, low, high)
        bias = np.zeros(view.out_channels) if view.bias is None else np.asarray(view.bias, np.float64)
        known = np.isfinite(bias)
        bias = np.where(known, bias, 0.0)
        low, high = np.where(known, low + bias, -math.inf), np.where(known, high + bias, math.inf)
        spec = graph.spec(Ref(node.name))
        reach = np.maximum(bias - low, high - bias)
        small = (reach > 0) & (reach <= 2 * unit(spec) * np.abs(bias))  # its bias changes in its last digit at most
        if small.any():
            self.small[node.name] = np.where(small, reach, 0.0)
            low, high = np.where(small, bias, low), np.where(small, bias, high)
        low, high = np.where(low == high, rounded(low, spec.dtype), low), np.where(low == high, rounded(high, spec.dtype), high)
        out = view.channel_axis(rank)
        return Interval(along(low, out, rank), along(high, out, rank))


def rounded(values: Array, dtype: str) -> Array:
    """As they are computed, in float64 again."""
    return np.asarray(in_dtype(values, dtype), np.float64)


def sums(kernel: KernelView, low: Array, high: Array) -> tuple[Array, Array]:
    """The bounds of each output channel, from those of each input channel. A weight of zero hides what is infinite.

    In the kernel's precision (that of the network's own sums); an output channel that reads nothing but constants is summed in float64.
    """
    inputs, groups, outputs = kernel.shape
    stored = kernel.kernel.astype(np.promote_types(kernel.kernel.dtype, np.float32), copy=False)
    taps = stored.reshape(math.prod(stored.shape[:-2]), *stored.shape[-2:])
    taps = (taps.swapaxes(1, 2) if kernel.transposed else taps).reshape(len(taps), inputs, groups, outputs)
    positive, negative = (
        (one[0] if len(one) == 1 else one.sum(axis=0)).swapaxes(0, 1)  # [groups, in, out]
        for one in (np.maximum(taps, 0), np.minimum(taps, 0))
    )
    a, b = (kernel.per_in(bound)[:, :, 0].T for bound in (low, high))  # [groups, in]
    with np.errstate(over="ignore", invalid="ignore"):
        bottom, top = product_sum(positive, a) + product_sum(negative, b), product_sum(positive, b) + product_sum(negative, a)
    bottom[reads(positive, ~np.isfinite(a)) | reads(negative, ~np.isfinite(b)) | ~np.isfinite(bottom)] = -math.inf
    top[reads(positive, ~np.isfinite(b)) | reads(negative, ~np.isfinite(a)) | ~np.isfinite(top)] = math.inf
    moving = (a != b) | ~np.isfinite(a)
    constant = ~(reads(positive, moving) | reads(negative, moving))
    if constant.any():
        group, output = np.nonzero(constant)
        exact = taps[:, :, group, output].sum(axis=0, dtype=np.float64).T * np.where(np.isfinite(a), a, 0.0)[group]
        bottom[constant] = top[constant] = exact.sum(axis=1)
    close = ~constant & (bottom == top)  # but for rounding they are not
    bottom[close], top[close] = np.nextafter(bottom[close], -math.inf), np.nextafter(top[close], math.inf)
    return bottom.reshape(-1), top.reshape(-1)


def product_sum(weights: Array, bounds: Array) -> Array:
    """The sums over input channels of weights ([groups, in, out]) times bounds ([groups, in]), without what is infinite: float64."""
    finite = np.where(np.isfinite(bounds), bounds, 0.0).astype(weights.dtype)
    if not finite.any():
        return np.zeros((weights.shape[0], weights.shape[2]))
    if len(weights) == 1:
        return np.asarray(finite @ weights[0], np.float64)
    return np.asarray(np.matmul(finite[:, None], weights)[:, 0], np.float64)


def reads(weights: Array, inputs: Array) -> Array:
    """Whether an output channel has a weight for any of the inputs ([groups, in]): [groups, out]."""
    if not inputs.any():
        return np.zeros((weights.shape[0], weights.shape[2]), bool)
    if inputs.all():
        return np.asarray(weights.any(axis=1))
    return np.asarray((weights.astype(bool) & inputs[:, :, None]).any(axis=1))


def times(a: Array, b: Array) -> Array:
    """A product in which zero times infinity is zero."""
    with np.errstate(invalid="ignore"):
        return np.where((a == 0) | (b == 0), 0.0, a * b)


# what operations make of bounds; None where that is not known

Found = Interval | None


def unknown(survey: Survey, node: Node, read: Sequence[Interval]) -> Found:
    return None


def relu(survey: Survey, node: Node, read: Sequence[Interval]) -> Found:
    config = node.config
    slope, threshold, limit = config["negative_slope"], config["threshold"], config["max_value"]
    if slope < 0:
        return None

    def function(x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            kept = np.where(x > threshold, x, 0.0 if slope == 0 else slope * (x - threshold))
        return kept if limit is None else np.minimum(kept, limit)

    return read[0].each(function) if threshold >= 0 else None


def prelu(survey: Survey, node: Node, read: Sequence[Interval]) -> Found:
    slopes = np.asarray(survey.graph.params(node)["alpha"], np.float64)
    if not (slopes >= 0).all():
        return None
    low, high = (np.where(bound > 0, bound, times(slopes, bound)) for bound in (read[0].low, read[0].high))
    return paired(low, high)


def handed_on(survey: Survey, node: Node, read: Sequence[Interval]) -> Found:
    return read[0] if has_trait(node, "positively_homogeneous") else None


def pooled(survey: Survey, node: Node, read: Sequence[Interval]) -> Found:
    axis = channel_axis(node, read[0].low.ndim + 1)
    count = read[0].low.shape[axis - 1]
    rank = len(survey.graph.spec(Ref(node.name)).dims)
    low, high = rows(read[0].low, axis, count).min(axis=0), rows(read[0].high, axis, count).max(axis=0)
    if node.op == "Pad" and any(any(pair) for pair in node.config["padding"]):
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    place = channel_axis(node, rank)
    return Interval(along(low, place, rank), along(high, place, rank))


def moved(survey: Survey, node: Node, read: Sequence[Interval]) -> Found:
    before, after = (survey.graph.spec(ref).dims for ref in (node.inputs[0], Ref(node.name)))
    low, high = (
        flattened(bound, before) if node.op == "Flatten" else reshaped(bound, before, after) for bound in (read[0].low, read[0].high)
    )
    return None if low is None or high is None else paired(low, high)


def concat(survey: Survey, node: Node, read: Sequence[Interval]) -> Found:
    dims = [survey.graph.spec(ref).dims for ref in node.inputs]
    axis = node.config["axis"] % len(dims[0])
    if axis == 0:
        return None
    low, high = (concatenated(bounds, axis, dims) for bounds in ([one.low for one in read], [one.high for one in read]))
    return None if low is None or high is None else paired(low, high)


def paired(low: Array, high: Array) -> Interval:
    """Two bounds in one shape."""
    low, high = np.broadcast_arrays(low, high)
    return Interval(low, high)


def joined(function: Callable[[Interval, Interval], tuple[Array, Array]]) -> Callable[[Survey, Node, Sequence[Interval]], Found]:
    def join(survey: Survey, node: Node, read: Sequence[Interval]) -> Found:
        rank = len(survey.graph.spec(Ref(node.name)).dims)
        whole, *others = [survey.operand(ref, rank) for ref in node.inputs]
        for other in others:
            with np.errstate(invalid="ignore"):
                low, high = function(whole, other)
            whole = paired(np.where(np.isnan(low), -math.inf, low), np.where(np.isnan(high), math.inf, high))
        return whole

    return join


def product(a: Interval, b: Interval) -> tuple[Array, Array]:
    corners = [times(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    return np.minimum.reduce(np.broadcast_arrays(*corners)), np.maximum.reduce(np.broadcast_arrays(*corners))


JOINS = ("Add", "Subtract", "Maximum", "Minimum", "Multiply")

RULES: Mapping[str, Callable[[Survey, Node, Sequence[Interval]], Found]] = {
    "Relu": relu,
    "PRelu": prelu,
    **dict.fromkeys(("Identity", "Dropout"), handed_on),
    **dict.fromkeys(("MaxPool", "AvgPool", "GlobalMaxPool", "GlobalAvgPool", "Pad", "Crop", "UpSample"), pooled),
    **dict.fromkeys(("Flatten", "Reshape"), moved),
    "Concat": concat,
    "Add": joined(lambda a, b: (a.low + b.low, a.high + b.high)),
    "Subtract": joined(lambda a, b: (a.low - b.high, a.high - b.low)),
    "Maximum": joined(lambda a, b: (np.maximum(a.low, b.low), np.maximum(a.high, b.high))),
    "Minimum": joined(lambda a, b: (np.minimum(a.low, b.low), np.minimum(a.high, b.high))),
    "Multiply": joined(product),
}

IMAGES: Mapping[str, tuple[float, float]] = {
    "Sigmoid": (0.0, 1.0),
    "HardSigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Tanh": (-1.0, 1.0),
    "Exp": (0.0, math.inf),
    "Softplus": (0.0, math.inf),
}
"""Between which numbers everything lies that a function gives."""

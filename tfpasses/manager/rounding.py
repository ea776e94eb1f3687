"""How far rounding may take a computation from its value in real arithmetic, element by element.

Take a value y that linear operations, batch norms and their like compute. Its magnitude |y| is what the same computation
gives with every term in absolute value: for a linear node sum |w||x| + |b|. Whatever the order of summation, the computed
value is within gamma·|y| of the true one, where gamma is a multiple of the unit roundoff u between 1 and the number of terms
(N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., sections 3.1 and 3.5).

So error / |y| is a pure number, free of the channel's scale and of cancellation, and its largest value over all elements that
the original computes, the *rate*, is a measured gamma. A rewrite that only reassociates has terms of the same magnitudes and
so the same rate; its error at an element may be some small multiple of rate·|y| *there*: a faint channel gets a small
allowance, however large the others are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs
import numpy as np

from tfpasses.graph import Array, Evaluator, Graph, LinearView, Node, Ref, Spec, has_trait

__all__ = [
    "UNITS",
    "Measured",
    "Wide",
    "distance",
    "fan_in",
    "jittered",
    "largest",
    "magnitude_graph",
    "measure",
    "smallest",
    "unit",
    "wide",
]

Wide = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

UNITS: Mapping[str, float] = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
SMALLEST: Mapping[str, float] = {"float16": 2.0**-24, "bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1022}
"""What may be lost by underflow: TensorFlow flushes subnormal numbers to zero, but for float16, which it computes in float32."""

SAME = frozenset(
    {"Add", "Multiply", "Maximum", "Concat", "Pad", "Crop", "MaxPool", "AvgPool", "GlobalMaxPool", "GlobalAvgPool", "Flatten", "Reshape"}
)
INSTEAD: Mapping[str, str] = {"Subtract": "Add", "Minimum": "Maximum"} | dict.fromkeys(
    ("Identity", "Dropout", "Relu", "PRelu", "Sigmoid", "HardSigmoid", "Tanh", "Silu", "HardSilu", "Softplus"), "Identity"
)
"""Functions of slope 1 or so hand on the error of their input, and with it its magnitude."""


def unit(spec: Spec) -> float:
    """The unit roundoff of a dtype; 0 for one that does not round."""
    return UNITS.get(spec.dtype, 0.0)


def smallest(spec: Spec) -> float:
    """The largest number that may be lost by underflow."""
    return SMALLEST.get(spec.dtype, 0.0)


def wide(value: Array) -> Wide:
    """As float64, in which every narrower number is exact."""
    return np.asarray(value, np.float64)


def largest(value: Array) -> float:
    """The largest finite absolute value."""
    array = np.abs(wide(value))
    return float(np.max(array, where=np.isfinite(array), initial=0.0))


def distance(a: Array, b: Array) -> float:
    """Largest absolute difference; infinite where shapes differ, where one has a NaN or infinity that the other has not, and
    where values that are no numbers differ.
    """
    if np.shape(a) != np.shape(b):
        return math.inf
    try:
        x, y = wide(a), wide(b)
    except (TypeError, ValueError):
        return 0.0 if np.array_equal(a, b) else math.inf
    strange = ~(np.isfinite(x) & np.isfinite(y))
    if strange.any() and not np.array_equal(x[strange], y[strange], equal_nan=True):
        return math.inf
    return float(np.max(np.abs(np.subtract(x, y, where=~strange, out=np.zeros_like(x))), initial=0.0))


def fan_in(graph: Graph, names: Sequence[str]) -> int:
    """The most terms that an output of a linear node among `names` sums up."""
    views = [LinearView.of(graph.nodes[name], graph) for name in names if has_trait(graph.nodes[name], "linear")]
    return max((view.kernel.size // max(view.out_channels, 1) for view in views), default=1)


def magnitude_graph(graph: Graph, names: Sequence[str]) -> tuple[Graph, list[Ref]]:
    """The nodes `names` with every term in absolute value, and the values that must be fed besides those from outside: what
    nodes give that are no such sums (opaque ones, softmax, ..).
    """
    nodes: dict[str, Node] = {}
    weights: dict[str, Array] = {}
    leaves: list[Ref] = []
    for name in names:
        node = graph.nodes[name]
        nodes.update((ref.node, graph.nodes[ref.node]) for ref in node.inputs if ref.node not in nodes)
        params = graph.params(node)
        if node.op == "BatchNorm" and not node.config.get("training"):
            arrays = {slot: array if slot == "variance" else np.abs(array) for slot, array in params.items()}
            arrays["mean"] = -arrays["mean"]
            node = attrs.evolve(node, params={})
        elif node.op in SAME or node.op == "Const" or has_trait(node, "linear"):
            arrays = {slot: np.abs(array) for slot, array in params.items()}
        elif node.op in INSTEAD and not node.config.get("training"):
            arrays, node = {}, attrs.evolve(node, op=INSTEAD[node.op], config={})
        else:
            arrays = {}
            leaves += [Ref(name, index) for index in range(len(node.specs))]
        keys = {slot: f"{name}/{slot}" for slot in arrays}
        weights.update((keys[slot], array) for slot, array in arrays.items())
        nodes[name] = attrs.evolve(node, params=keys)
    return Graph(nodes, weights), leaves


def jittered(graph: Graph, names: Sequence[str], feeds: Mapping[Ref, Array], seed: int) -> tuple[Graph, dict[Ref, Array]]:
    """Weights and feeds moved by up to 1/64 of themselves: the same magnitudes, rounded anew."""
    generator = np.random.Generator(np.random.PCG64(seed))

    def move(array: Array) -> Array:
        if not (np.issubdtype(array.dtype, np.floating) or array.dtype.name == "bfloat16"):
            return array
        moved: Array = (wide(array) * (1.0 + generator.uniform(-1 / 64, 1 / 64, array.shape))).astype(array.dtype)
        return moved

    keys = {key for name in names for key in graph.nodes[name].params.values()}
    weights = {key: move(array) if key in keys else array for key, array in graph.weights.items()}
    return attrs.evolve(graph, weights=weights), {ref: move(np.asarray(array)) for ref, array in feeds.items()}


@attrs.frozen(eq=False)
class Measured:
    """One run of a graph in its own dtypes and in float64, and for every fetch its largest error / scale over all runs."""

    own: list[Array]
    truth: list[Array]
    rates: list[float]


def measure(
    graph: Graph,
    names: Sequence[str],
    feeds: Mapping[Ref, Array],
    fetches: Sequence[Ref],
    evaluator: Evaluator,
    scales: Sequence[Wide | float],
    more: int = 0,
) -> Measured:
    """Run the nodes `names`, and `more` jittered copies of them: the error of one run, or of one parameter, may be small by chance.

    `scales` broadcast against the fetches. What computes in float64, against which nothing is more exact, is measured in float32, in
    proportion to the units; what computes in several dtypes is measured as it stands too.
    """
    dtypes = {spec.dtype for name in names for spec in graph.nodes[name].specs if unit(spec)}
    ways: list[tuple[str | None, float]] = [(None, 1.0)] if dtypes != {"float64"} else []
    if "float64" in dtypes:
        ways.append(("float32", UNITS["float64"] / UNITS["float32"]))
    runs: list[Measured] = []
    for drawn, values in [(graph, feeds), *(jittered(graph, names, feeds, seed) for seed in range(more))]:
        truth = evaluator.compile(drawn, list(values), fetches, "float64")(values)
        own = [evaluator.compile(drawn, list(values), fetches, dtype)(values) for dtype, _ in ways]
        rates = [
            max(share * rate(array, exact, scale) for (_, share), array in zip(ways, arrays, strict=True))
            for *arrays, exact, scale in zip(*own, truth, scales, strict=True)
        ]
        runs.append(Measured(own[0], truth, rates))
    return Measured(runs[0].own, runs[0].truth, [max(rates) for rates in zip(*(run.rates for run in runs), strict=True)])


def rate(own: Array, truth: Array, scale: Wide | float) -> float:
    """The largest finite error / scale."""
    try:
        x, y = wide(own), wide(truth)
    except (TypeError, ValueError):  # strings
        return 0.0
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return largest(np.abs(x - y) / scale)

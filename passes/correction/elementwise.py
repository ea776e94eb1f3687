"""What is known of a value after operations that take it element by element."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import attrs
import numpy as np

from tfpasses.graph import Array, Edit, Graph, Node, has_trait
from tfpasses.passes.correction import piecewise
from tfpasses.passes.correction.moments import Moments

__all__ = ["BENDS", "ELEMENTWISE", "JOINS"]

AnyGraph = Graph | Edit
Found = Moments | None
Read = Sequence[Moments]
Rule = Callable[[AnyGraph, Node, Read], Found]
"""What a node gives, from what it reads; None where that is not known."""


def relu(graph: AnyGraph, node: Node, read: Read) -> Found:
    config = node.config
    return read[0].bent(lambda x: piecewise.rectified(x, config["negative_slope"], config["threshold"], config["max_value"]))


def prelu(graph: AnyGraph, node: Node, read: Read) -> Found:
    slopes = np.asarray(graph.params(node)["alpha"], np.float64)
    return read[0].bent(lambda x: piecewise.rectified(x, slopes))


def hard_sigmoid(graph: AnyGraph, node: Node, read: Read) -> Found:
    return read[0].bent(lambda x: piecewise.rectified(piecewise.affine(x, 0.5, 1 / 6), 0.0, 0.0, 1.0))


def sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


SMOOTH: Mapping[str, Callable[[Array], Array]] = {
    "Sigmoid": sigmoid,
    "Tanh": np.tanh,
    "Silu": lambda x: x * sigmoid(x),
    "HardSilu": lambda x: x * np.clip(x / 6 + 0.5, 0.0, 1.0),
    "Softplus": lambda x: np.logaddexp(0.0, x),
}


def smooth(graph: AnyGraph, node: Node, read: Read) -> Found:
    (value,) = read
    straight = value.base is not None and len(value.pieces) == 1
    std = value.std if straight else np.where(value.std == 0, 0.0, np.nan)
    mean, std = piecewise.smooth_moments(value.mean, std, SMOOTH[node.op])
    return attrs.evolve(value.without_shape(mean, std), assumes=value.assumes | value.sums)


def handed_on(graph: AnyGraph, node: Node, read: Read) -> Found:
    return read[0] if has_trait(node, "inference_identity") else None


def maximum(graph: AnyGraph, node: Node, read: Read) -> Found:
    """The larger of a value and a constant, or the smaller."""
    bend = piecewise.above_limit if node.op == "Maximum" else piecewise.below_limit
    whole, limits = parted(graph, node, read)
    if whole is None:
        return None
    for limit in limits:
        whole = whole.bent(lambda x, limit=limit: bend(x, limit))  # type: ignore[misc]  # mypy knows no default of a lambda
    return whole


def parted(graph: AnyGraph, node: Node, read: Read) -> tuple[Moments | None, list[Array]]:
    """The one value that a node reads which is no constant, and the constants; None where there are several."""
    values = [one for ref, one in zip(node.inputs, read, strict=True) if graph.nodes[ref.node].op != "Const"]
    consts = [one.mean for ref, one in zip(node.inputs, read, strict=True) if graph.nodes[ref.node].op == "Const"]
    return (values[0] if len(values) == 1 else None), consts


def multiply(graph: AnyGraph, node: Node, read: Read) -> Found:
    """A value times constants; of several values the product is known where all but one are constant."""
    whole, factors = parted(graph, node, read)
    if whole is not None:
        for factor in factors:
            whole = whole.bent(lambda x, factor=factor: piecewise.affine(x, 0.0, factor))  # type: ignore[misc]  # as above
        return whole
    product = read[0]
    for other in read[1:]:
        sure = (product.std == 0) | (other.std == 0)
        mean = np.where(sure, product.mean * other.mean, np.nan)
        std = np.where(sure, np.abs(product.mean) * other.std + np.abs(other.mean) * product.std, np.nan)
        product = together(product, other).without_shape(mean, std)
    return product


def together(a: Moments, b: Moments) -> Moments:
    """The first, with what the second rests on."""
    return attrs.evolve(a, sources=a.sources | b.sources, sums=a.sums | b.sums, assumes=a.assumes | b.assumes)


def add(graph: AnyGraph, node: Node, read: Read) -> Found:
    """A sum, or a difference: of the means, and of the variances of independent parts."""
    signs = [1.0] * len(read) if node.op == "Add" else [1.0, -1.0]
    parts: dict[int, tuple[Moments, float]] = {}
    offset: Array = np.zeros(())
    for ref, one, sign in zip(node.inputs, read, signs, strict=True):
        if graph.nodes[ref.node].op == "Const":
            offset = offset + sign * one.mean
        else:
            parts[id(one)] = (one, parts.get(id(one), (one, 0.0))[1] + sign)  # the same value twice is one part, twice as large
    if not parts:
        return Moments.constant(offset)
    if len(parts) == 1:
        ((one, factor),) = parts.values()
        return one.bent(lambda x: piecewise.affine(x, offset, factor))
    mean = sum((factor * one.mean for one, factor in parts.values()), offset)
    variance = sum(((factor * one.std) ** 2 for one, factor in parts.values()), np.zeros(()))
    sources = [source for one, _ in parts.values() for source in one.sources]
    std = np.sqrt(variance) if len(sources) == len(set(sources)) else np.full(np.shape(variance), np.nan)
    whole = reduce(together, (one for one, _ in parts.values()))
    return attrs.evolve(whole, mean=mean, std=std, base=(mean, std), pieces=piecewise.IDENTITY, sums=whole.sums | {node.name})


JOINS = ("Add", "Subtract", "Maximum", "Minimum", "Multiply")
"""What broadcasts what it reads."""

BENDS = ("Relu", "PRelu", "HardSigmoid", *SMOOTH)
"""Of what these give, the mean depends on how what they read is distributed."""

ELEMENTWISE: Mapping[str, Rule] = {
    "Relu": relu,
    "PRelu": prelu,
    "HardSigmoid": hard_sigmoid,
    **dict.fromkeys(SMOOTH, smooth),
    **dict.fromkeys(("Identity", "Dropout"), handed_on),
    "Add": add,
    "Subtract": add,
    "Multiply": multiply,
    "Maximum": maximum,
    "Minimum": maximum,
}

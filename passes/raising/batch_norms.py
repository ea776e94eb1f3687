"""Batch norms at inference: TensorFlow's fused operation, and what `tf.nn.batch_normalization` and converters make of one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfpasses.graph import Edit, Node, Ref
from tfpasses.passes.raising.cluster import Raising, vector_axis
from tfpasses.pattern import Match, Miss, Pattern, Rule, anything, op

__all__ = ["batch_norm_rules"]

FUSED = ("tf.FusedBatchNorm", "tf.FusedBatchNormV2", "tf.FusedBatchNormV3")
EPSILON = 1e-4
"""What the definitions of the fused operations say where a node says nothing."""


def const(name: str) -> Pattern:
    return op("Const")[name]


def add(a: Pattern, b: Pattern) -> Pattern:
    return op("tf.AddV2", "tf.Add")(a, b).commutative()


def multiply(a: Pattern, b: Pattern) -> Pattern:
    return op("tf.Mul")(a, b).commutative()


NUMBER = op("Const").when("it is no number", lambda node, _: node.specs[0].shape == ())
INVERSE = op("tf.Rsqrt")["inverse"](add(const("variance"), NUMBER["epsilon"]))
SCALE = op("tf.Mul")["scale"](INVERSE, const("gamma")).commutative()
X = anything()["x"]


def decomposed(scale: Pattern, again: Pattern) -> Pattern:
    """x·scale + (beta - mean·scale), or with -mean·scale alone; `again` is the same scale where it is read a second time."""
    mean = multiply(const("mean"), again)
    without_beta = multiply(op("tf.Neg")(const("mean")), again) | op("tf.Neg")(mean)
    return add(multiply(X, scale), op("tf.Sub")(const("beta"), mean) | without_beta) | op("tf.Sub")(multiply(X, scale), mean)


DECOMPOSED = decomposed(SCALE, op("tf.Mul")["scale"]) | decomposed(INVERSE, op("tf.Rsqrt")["inverse"])
VECTORS = ("gamma", "beta", "mean", "variance")


def batch_norm_rules(raising: Raising) -> Sequence[Rule]:
    """The rules that raise to `BatchNorm`."""

    def norm(match: Match, edit: Edit, x: Ref) -> Miss | None:
        """A batch norm of `x` whose parameters were captured."""
        constants = {slot: match[slot] for slot in VECTORS if match.get(slot) is not None}
        epsilon = edit.weights[match["epsilon"].params["value"]]
        rank = edit.spec(x).shape
        if rank is None:
            return match.miss("the rank of what it reads is not known")
        placed = place(constants, len(rank), edit)
        if placed is None:
            return match.miss("its parameters do not lie along one axis")
        axis, size = placed
        config = {"axis": axis, "epsilon": float(np.float64(epsilon.reshape(())))}
        return raising(match, edit, "BatchNorm", (x,), config, {slot: (node, (size,)) for slot, node in constants.items()})

    def in_parts(match: Match, edit: Edit) -> Miss | None:
        """Rsqrt, Mul, Sub and AddV2."""
        return norm(match, edit, match.ref("x"))

    def fused(match: Match, edit: Edit) -> Miss | None:
        """TensorFlow's fused operation, not in training."""
        node = edit.nodes[match.root.name]
        if node.config.get("is_training", True):
            return match.miss("it is called with is_training=True, so it has no fixed scale and shift")
        gamma, beta, mean, variance = (match[slot] for slot in ("gamma", "beta", "mean", "variance"))
        if edit.spec(node.inputs[0]).shape is None:
            return match.miss("the rank of what it reads is not known")
        axis = 1 if str(node.config.get("data_format", "NHWC")).startswith("NC") else len(edit.spec(node.inputs[0]).dims) - 1
        size = edit.weights[gamma.params["value"]].size
        constants = {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance}
        config = {"axis": axis, "epsilon": float(node.config.get("epsilon", EPSILON))}
        return raising(match, edit, "BatchNorm", (node.inputs[0],), config, {slot: (one, (size,)) for slot, one in constants.items()})

    def multiply_add(match: Match, edit: Edit) -> Miss | None:
        """A multiplication and an addition of constants per channel, what converters leave of a batch norm: mean 0 and variance 1."""
        x, scale, shift = match.ref("x"), match["gamma"], match["beta"]
        rank = edit.spec(x).shape
        placed = None if rank is None else place({"gamma": scale, "beta": shift}, len(rank), edit)
        if placed is None:
            return match.miss("its parameters do not lie along one axis")
        axis, size = placed
        dtype = edit.weights[scale.params["value"]].dtype
        computed = {"mean": np.zeros(size, dtype), "variance": np.ones(size, dtype)}
        params = {"gamma": (scale, (size,)), "beta": (shift, (size,))}
        return raising(match, edit, "BatchNorm", (x,), {"axis": axis, "epsilon": 0.0}, params, computed)

    return [
        Rule.of("batch norm", DECOMPOSED, in_parts),
        Rule.of("fused batch norm", op(*FUSED)(anything(), const("gamma"), const("beta"), const("mean"), const("variance")), fused),
        Rule.of(
            "multiply-add", op("tf.AddV2", "tf.Add", "tf.BiasAdd")(multiply(X, const("gamma")), const("beta")).commutative(), multiply_add
        ),
    ]


def place(constants: dict[str, Node], rank: int, edit: Edit) -> tuple[int, int] | None:
    """The axis along which all these constants lie, of a value of `rank` axes, and how long it is."""
    found = {vector_axis(edit.spec(Ref(node.name)).dims, rank) for node in constants.values()}
    sizes = {edit.weights[node.params["value"]].size for node in constants.values()}
    if len(found) != 1 or None in found or len(sizes) != 1:
        return None
    return found.pop() or 0, sizes.pop()

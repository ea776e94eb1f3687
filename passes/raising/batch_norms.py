"""Batch norms at inference: TensorFlow's fused operation, and what `tf.nn.batch_normalization` and converters make of one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfpasses.graph import Edit, Node, Ref, Spec
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

    def in_parts(match: Match, edit: Edit) -> Miss | None:
        """Rsqrt, Mul, Sub and AddV2."""
        x = match.ref("x")
        constants = {slot: match[slot] for slot in VECTORS if match.get(slot) is not None}
        epsilon = edit.weights[match["epsilon"].params["value"]]
        placed = place(constants, edit.spec(x), edit)
        if placed is None:
            return match.miss("its parameters do not lie along one axis of what it reads")
        axis, size = placed
        config = {"axis": axis, "epsilon": float(np.float64(epsilon.reshape(())))}
        return raising(match, edit, "BatchNorm", (x,), config, {slot: (node, (size,)) for slot, node in constants.items()})

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
        placed = place({"gamma": scale, "beta": shift}, edit.spec(x), edit)
        root = edit.nodes[match.root.name]
        if placed is None or (root.op == "tf.BiasAdd" and root.config.get("data_format") == "NCHW"):
            return match.miss("its parameters do not lie along one axis of what it reads")
        if not all(np.isfinite(edit.weights[node.params["value"]].astype(np.float64)).all() for node in (scale, shift)):
            return match.miss("its parameters are not finite, and a mean of 0 times infinity is no number")
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


def place(constants: dict[str, Node], spec: Spec, edit: Edit) -> tuple[int, int] | None:
    """The axis of a value along which all these constants lie, and how long it is; None where they do not, or it may be another length."""
    if spec.shape is None:
        return None
    found = {vector_axis(edit.spec(Ref(node.name)).dims, spec.shape) for node in constants.values()}
    sizes = {edit.weights[node.params["value"]].size for node in constants.values()}
    axis = found.pop() if len(found) == 1 else None
    if axis is None or len(sizes) != 1 or spec.shape[axis] not in sizes:
        return None
    return axis, sizes.pop()

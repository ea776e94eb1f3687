"""Operations of each element: TensorFlow's one for one, and activations that are written as several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfpasses.graph import Array, Edit, Node
from tfpasses.passes.raising.cluster import Raising
from tfpasses.pattern import Match, Miss, Pattern, Rule, anything, op

__all__ = ["composed_rules", "one_for_one_rules"]

Config = dict[str, Any]


def relu(max_value: float | None = None, negative_slope: float = 0.0) -> Config:
    """The configuration of a canonical `Relu`."""
    return {"max_value": max_value, "negative_slope": negative_slope, "threshold": 0.0}


OF_ONE: Mapping[str, tuple[str, Callable[[Node], Config]]] = {
    "tf.Relu": ("Relu", lambda node: relu()),
    "tf.Relu6": ("Relu", lambda node: relu(6.0)),
    "tf.LeakyRelu": ("Relu", lambda node: relu(negative_slope=float(node.config.get("alpha", 0.2)))),
    **{
        f"tf.{name}": (op_name, lambda node: {})
        for name, op_name in {
            "Sigmoid": "Sigmoid",
            "Tanh": "Tanh",
            "Softplus": "Softplus",
            "Exp": "Exp",
            "Softmax": "Softmax",
            "Identity": "Identity",
            "StopGradient": "Identity",
            "PreventGradient": "Identity",
        }.items()
    },
}
OF_SEVERAL: Mapping[str, str] = {
    "tf.Add": "Add",
    "tf.AddV2": "Add",
    "tf.BiasAdd": "Add",
    "tf.Sub": "Subtract",
    "tf.Mul": "Multiply",
    "tf.Maximum": "Maximum",
    "tf.Minimum": "Minimum",
}


def one_for_one_rules(raising: Raising) -> Sequence[Rule]:
    """The rules that raise one operation each."""

    def of_one(match: Match, edit: Edit) -> Miss | None:
        node = edit.nodes[match.root.name]
        name, config = OF_ONE[node.op]
        return raising(match, edit, name, node.inputs, config(node))

    def of_several(match: Match, edit: Edit) -> Miss | None:
        node = edit.nodes[match.root.name]
        if node.op == "tf.BiasAdd" and node.config.get("data_format") == "NCHW":
            return match.miss("it adds along another axis than the last")
        return raising(match, edit, OF_SEVERAL[node.op], node.inputs)

    return [Rule.of("one operation", op(*OF_ONE), of_one), Rule.of("operation of several", op(*OF_SEVERAL), of_several)]


def composed_rules(raising: Raising) -> Sequence[Rule]:
    """The rules that raise several operations to one activation."""

    def clip(match: Match, edit: Edit) -> Miss | None:
        """Between 0 and a number, by way of Maximum and Minimum or of a Relu."""
        low = 0.0 if match.get("low") is None else number(edit, match["low"])
        high = number(edit, match["high"])
        if low != 0 or high is None or not high > 0:
            return match.miss("its limits are not 0 and a number above")
        return raising(match, edit, "Relu", (match.ref("x"),), relu(high))

    def leaky(match: Match, edit: Edit) -> Miss | None:
        """The larger of x and a share of it."""
        slope = number(edit, match["slope"])
        if slope is None or not 0 < slope < 1:
            return match.miss("its slope is no number between 0 and 1")
        return raising(match, edit, "Relu", (match.ref("x"),), relu(negative_slope=slope))

    def silu(match: Match, edit: Edit) -> Miss | None:
        """x·sigmoid(x), also as TensorFlow writes it: with a factor of 1, and wrapped to have a gradient of its own."""
        if match.get("one") is not None and number(edit, match["one"]) != 1:
            return match.miss("the factor within its sigmoid is not 1")
        return raising(match, edit, "Silu", (match.ref("x"),), {})

    def prelu(match: Match, edit: Edit) -> Miss | None:
        """relu(x) - alpha·relu(-x), with a slope per element or shared along axes."""
        x, alpha = match.ref("x"), match["alpha"]
        shape, slopes = edit.spec(x).shape, alpha.specs[0].shape
        if shape is None or slopes is None or None in slopes or len(slopes) > len(shape):
            return match.miss("its shapes are not known")
        slopes = slopes[1:] if len(slopes) == len(shape) and slopes[0] == 1 else slopes
        if len(slopes) != len(shape) - 1:
            return match.miss("its slopes are not for all axes but the first")
        sizes = tuple(size or 1 for size in slopes)
        shared = tuple(place for place, size in enumerate(sizes, start=1) if size == 1)
        return raising(match, edit, "PRelu", (x,), {"shared_axes": shared}, {"alpha": (alpha, sizes)})

    x = anything()["x"]
    swish = two("tf.Mul", x, op("tf.Sigmoid")(x) | op("tf.Sigmoid")(multiply(x, const("one"))))
    inner = op("Silu")(x)
    wrapped = op("tf.IdentityN")(inner, x) | op("tf.IdentityN")(inner, x, anything())
    relu_of_x = op("tf.Relu", "Relu")(x)
    relu_of_minus = op("tf.Relu", "Relu")(op("tf.Neg")(x))
    slope = op("Const")["alpha"]
    minus = multiply(op("tf.Neg")(slope), relu_of_minus)
    return [
        Rule.of("clip", two("tf.Minimum", two("tf.Maximum", x, const("low")), const("high")), clip),
        Rule.of("clip of below", two("tf.Maximum", two("tf.Minimum", x, const("high")), const("low")), clip),
        Rule.of("clip by value", op("tf.ClipByValue")(x, const("low"), const("high")), clip),
        Rule.of("clip of a Relu", two("tf.Minimum", relu_of_x, const("high")), clip),
        Rule.of("Silu", wrapped | swish, silu),
        Rule.of("leaky", two("tf.Maximum", multiply(x, const("slope")), x), leaky),
        Rule.of("PRelu", two("tf.AddV2", relu_of_x, minus) | op("tf.Sub")(relu_of_x, multiply(slope, relu_of_minus)), prelu),
    ]


def const(name: str) -> Pattern:
    return op("Const")[name]


def two(name: str, a: Pattern, b: Pattern) -> Pattern:
    return op(name)(a, b).commutative()


def multiply(a: Pattern, b: Pattern) -> Pattern:
    return two("tf.Mul", a, b)


def number(edit: Edit, constant: Node) -> float | None:
    """A constant of one element."""
    array: Array = edit.weights[constant.params["value"]]
    return float(np.float64(array.reshape(()))) if array.size == 1 and array.dtype.kind in "fV" else None

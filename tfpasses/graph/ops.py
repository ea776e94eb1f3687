"""The vocabulary: the canonical operations, what each means, its parameter slots, and the traits that passes ask for.

A pass names traits, not lists of operations: a new operation joins every pass by declaring its traits here.
Foreign operations (`keras.LSTM`) are not in the table; they are opaque and have no traits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from tfpasses.graph.node import Node

__all__ = ["TRAITS", "VOCABULARY", "Op", "has_trait", "ops_with_trait"]

TRAITS: Mapping[str, str] = {
    "linear": "a kernel with an out axis, an in axis and groups, and an optional bias: see `LinearView`",
    "inference_identity": "gives its input back at inference",
    "activation": "a non-linear function of each element",
    "elementwise": "each output element depends on the elements at the same place only",
    "channelwise": "each output channel depends on the same input channel only",
    "positively_homogeneous": "f(s·x) = s·f(x) for every s > 0",
    "shape_only": "moves elements without changing them",
}


@attrs.frozen
class Op:
    """A canonical operation."""

    name: str
    meaning: str
    slots: tuple[str, ...] = ()
    """Parameter slots; those that may be absent end in `?`."""
    traits: frozenset[str] = frozenset()
    conditional: Mapping[str, Callable[[Node], bool]] = attrs.field(factory=dict)
    """Traits that hold only for some configurations."""


def _op(
    name: str, meaning: str, *, slots: str = "", traits: str = "", conditional: Mapping[str, Callable[[Node], bool]] | None = None
) -> Op:
    declared = frozenset(traits.split())
    unknown = (declared | set(conditional or ())) - set(TRAITS)
    if unknown:
        raise ValueError(f"op {name}: unknown trait {', '.join(sorted(unknown))}")
    return Op(name, meaning, tuple(slots.split()), declared, conditional or {})


def _inactive(node: Node) -> bool:
    return not node.config.get("training", False)


def _plain_relu(node: Node) -> bool:
    return node.config["max_value"] is None and node.config["threshold"] == 0


_KERNEL = "kernel bias?"
_EACH = "elementwise channelwise"
_POINT = f"{_EACH} activation"
_JOIN = "elementwise channelwise positively_homogeneous"

VOCABULARY: Mapping[str, Op] = {
    entry.name: entry
    for entry in (
        _op("Input", "a graph input"),
        _op("Const", "a constant array, or the value of a variable that nothing writes", slots="value"),
        _op("Variable", "the handle of a variable, whose value is the weight that its configuration names"),
        _op("Conv", "convolution, 1-D to 3-D; kernel [k.., in/groups, out]", slots=_KERNEL, traits="linear"),
        _op(
            "DepthwiseConv",
            "depthwise convolution; kernel [k.., in, multiplier], out channel = in·multiplier + m",
            slots=_KERNEL,
            traits="linear",
        ),
        _op("ConvTranspose", "transposed convolution; kernel [k.., out, in]", slots=_KERNEL, traits="linear"),
        _op(
            "SeparableConv",
            "a depthwise convolution, then a pointwise one",
            slots="depthwise_kernel pointwise_kernel bias?",
            traits="linear",
        ),
        _op("Dense", "matrix product over the last axis; kernel [in, out]", slots=_KERNEL, traits="linear"),
        _op(
            "BatchNorm",
            "(x - mean)·gamma / sqrt(variance + epsilon) + beta along `axis`; with `training` the batch's own statistics",
            slots="gamma? beta? mean variance",
            traits="",
            conditional={"channelwise": _inactive, "elementwise": _inactive},
        ),
        _op(
            "Relu",
            "max_value if x >= max_value, x if x > threshold, else negative_slope·(x - threshold)",
            traits=_POINT,
            conditional={"positively_homogeneous": _plain_relu},
        ),
        _op(
            "PRelu",
            "x if x > 0, else alpha·x; alpha has all axes but the first, with size 1 along `shared_axes`",
            slots="alpha",
            traits="elementwise channelwise activation positively_homogeneous",
        ),
        *(
            _op(name, meaning, traits=_POINT)
            for name, meaning in {
                "Sigmoid": "1 / (1 + exp(-x))",
                "HardSigmoid": "clip(x/6 + 1/2, 0, 1)",
                "Tanh": "tanh(x)",
                "Silu": "x·sigmoid(x)",
                "HardSilu": "x·hard_sigmoid(x)",
                "Softplus": "log(1 + exp(x))",
                "Exp": "exp(x)",
            }.items()
        ),
        _op("Softmax", "exp(x) over its sum along the last axis", traits="activation"),
        _op("Add", "sum of its inputs, broadcast", traits=_JOIN),
        _op("Subtract", "first input minus the second, broadcast", traits=_JOIN),
        _op("Multiply", "product of its inputs, broadcast", traits=_EACH),
        _op("Maximum", "largest of its inputs, broadcast", traits=_JOIN),
        _op("Minimum", "smallest of its inputs, broadcast", traits=_JOIN),
        _op("Concat", "its inputs one after the other along `axis`", traits="positively_homogeneous shape_only"),
        _op("Pad", "zeros around the spatial axes", traits="channelwise positively_homogeneous"),
        _op("Crop", "the spatial axes without some elements at their ends", traits="channelwise positively_homogeneous"),
        _op(
            "UpSample",
            "`size` elements for each along spatial axes: repeated (`interpolation` nearest), or on lines between their centers (bilinear)",
            traits="channelwise positively_homogeneous",
        ),
        _op("MaxPool", "largest value of each window", traits="channelwise positively_homogeneous"),
        _op("AvgPool", "mean of each window, padding not counted", traits="channelwise positively_homogeneous"),
        _op("GlobalMaxPool", "largest value over the spatial axes", traits="channelwise positively_homogeneous"),
        _op("GlobalAvgPool", "mean over the spatial axes", traits="channelwise positively_homogeneous"),
        _op("Identity", "its input", traits=f"inference_identity {_JOIN} shape_only"),
        _op(
            "Dropout",
            "its input at inference; noise when called with `training`",
            conditional=dict.fromkeys(("inference_identity", "elementwise", "channelwise", "positively_homogeneous"), _inactive),
        ),
        _op("Flatten", "all axes but the first in one", traits="shape_only positively_homogeneous"),
        _op("Reshape", "all axes but the first reshaped to `target_shape`", traits="shape_only positively_homogeneous"),
    )
}


def has_trait(node: Node, trait: str) -> bool:
    """Whether this node, as it is configured, has the trait."""
    entry = VOCABULARY.get(node.op)
    if entry is None:
        return False
    condition = entry.conditional.get(trait)
    return condition(node) if condition is not None else trait in entry.traits


def ops_with_trait(trait: str) -> frozenset[str]:
    """The operations that have the trait, at least in some configuration."""
    if trait not in TRAITS:
        raise ValueError(f"unknown trait {trait!r}; known are {', '.join(TRAITS)}")
    return frozenset(name for name, entry in VOCABULARY.items() if trait in entry.traits or trait in entry.conditional)

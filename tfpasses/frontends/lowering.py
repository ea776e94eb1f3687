"""The one TensorFlow lowering of every canonical operation, shared by all frontends.

Each works in whatever floating-point dtype its inputs have. Where TensorFlow has no CPU kernel for a case (grouped convolutions,
dilated transposed convolutions, channels first), it is computed by another construction that gives the same sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
import tensorflow as tf

from tfpasses.graph import Node
from tfpasses.graph.shapes import infer_shape

__all__ = ["LOWERING", "lower"]

Tensor = Any
Rule = Callable[[Node, Sequence[Tensor], Mapping[str, Tensor]], Tensor]


def lower(node: Node, inputs: Sequence[Tensor], params: Mapping[str, Tensor]) -> Tensor:
    """The value of a canonical node. `KeyError` for an operation that has no lowering."""
    return LOWERING[node.op](node, inputs, params)


def _channels_last(rule: Rule) -> Rule:
    """Run a rule that knows channels last only."""

    def wrapped(node: Node, inputs: Sequence[Tensor], params: Mapping[str, Tensor]) -> Tensor:
        if node.config.get("data_format") != "channels_first":
            return rule(node, inputs, params)
        rank = inputs[0].shape.rank
        turned = tf.transpose(inputs[0], [0, *range(2, rank), 1])
        value = rule(node, [turned], params)
        return tf.transpose(value, [0, value.shape.rank - 1, *range(1, value.shape.rank - 1)])

    return wrapped


def _add_bias(value: Tensor, params: Mapping[str, Tensor]) -> Tensor:
    return value + params["bias"] if "bias" in params else value


def _pad_causally(x: Tensor, kernel: Tensor, dilation: int) -> Tensor:
    return tf.pad(x, [[0, 0], [dilation * (kernel.shape[0] - 1), 0], [0, 0]])


def _padding(node: Node) -> str:
    return "SAME" if node.config["padding"] == "same" else "VALID"


@_channels_last
def _conv(node: Node, inputs: Sequence[Tensor], params: Mapping[str, Tensor]) -> Tensor:
    x, kernel, config = inputs[0], params["kernel"], node.config
    if config["padding"] == "causal":
        x = _pad_causally(x, kernel, config["dilation"][0])
    if config["groups"] == 1:
        value = tf.nn.convolution(x, kernel, config["strides"], _padding(node), dilations=config["dilation"])
        return _add_bias(value, params)
    parts = zip(tf.split(x, config["groups"], -1), tf.split(kernel, config["groups"], -1), strict=True)
    sums = [tf.nn.convolution(part, k, config["strides"], _padding(node), dilations=config["dilation"]) for part, k in parts]
    return _add_bias(tf.concat(sums, -1), params)


def _depthwise(node: Node, x: Tensor, kernel: Tensor) -> Tensor:
    config = node.config
    strides, dilation = list(config["strides"]), list(config["dilation"])
    if kernel.shape.rank == 4:
        return tf.nn.depthwise_conv2d(x, kernel, [1, *strides, 1], _padding(node), dilations=dilation)
    if config["padding"] == "causal":
        x = _pad_causally(x, kernel, dilation[0])
    image, taps = tf.expand_dims(x, 1), tf.expand_dims(kernel, 0)
    return tf.squeeze(tf.nn.depthwise_conv2d(image, taps, [1, *strides, *strides, 1], _padding(node), dilations=dilation * 2), [1])


@_channels_last
def _depthwise_conv(node: Node, inputs: Sequence[Tensor], params: Mapping[str, Tensor]) -> Tensor:
    return _add_bias(_depthwise(node, inputs[0], params["kernel"]), params)


@_channels_last
def _separable_conv(node: Node, inputs: Sequence[Tensor], params: Mapping[str, Tensor]) -> Tensor:
    value = _depthwise(node, inputs[0], params["depthwise_kernel"])
    return _add_bias(tf.nn.convolution(value, params["pointwise_kernel"], padding="VALID"), params)


@_channels_last
def _conv_transpose(node: Node, inputs: Sequence[Tensor], params: Mapping[str, Tensor]) -> Tensor:
    x, kernel, config = inputs[0], params["kernel"], node.config
    plain = Node(node.name, node.op, config={**config, "data_format": "channels_last"})
    shape = infer_shape(plain, [tuple(x.shape)], {"kernel": tuple(kernel.shape)})
    if None in (shape or ()):  # while it is traced, not run
        sizes = infer_shape(plain, [tuple(_sizes(x))], {"kernel": tuple(kernel.shape)}) if None not in x.shape[1:] else None
        if sizes is None:
            raise ValueError(f"node {node.name}: a transposed convolution of an image of unknown size has no fixed output shape")
        shape = tf.stack(sizes)
    for axis, rate in enumerate(config["dilation"]):
        if rate > 1:  # zeros between the taps
            size = kernel.shape[axis]
            spread = np.zeros(((size - 1) * rate + 1, size))
            spread[np.arange(size) * rate, np.arange(size)] = 1
            kernel = tf.experimental.numpy.moveaxis(tf.tensordot(tf.cast(spread, kernel.dtype), kernel, [[1], [axis]]), 0, axis)
    return _add_bias(tf.nn.conv_transpose(x, kernel, shape, list(config["strides"]), _padding(node)), params)


def _dense(node: Node, inputs: Sequence[Tensor], params: Mapping[str, Tensor]) -> Tensor:
    (x,), kernel = inputs, params["kernel"]
    flat = x.shape.rank == kernel.shape.rank  # one operation to trace instead of twenty
    return _add_bias(tf.linalg.matmul(x, kernel) if flat else tf.tensordot(x, kernel, 1), params)


def _batch_norm(node: Node, inputs: Sequence[Tensor], params: Mapping[str, Tensor]) -> Tensor:
    (x,), config = inputs, node.config
    axis = config["axis"] % x.shape.rank
    shape = [-1 if i == axis else 1 for i in range(x.shape.rank)]
    wide = tf.float64 if x.dtype == tf.float64 else tf.float32  # as Keras does for half precision
    vectors = {slot: tf.reshape(tf.cast(value, wide), shape) for slot, value in params.items()}
    y = tf.cast(x, wide)
    mean, variance = vectors["mean"], vectors["variance"]
    if config.get("training"):
        mean, variance = tf.nn.moments(y, [i for i in range(x.shape.rank) if i != axis], keepdims=True)
    return tf.cast(tf.nn.batch_normalization(y, mean, variance, vectors.get("beta"), vectors.get("gamma"), config["epsilon"]), x.dtype)


def _relu(node: Node, inputs: Sequence[Tensor], params: Mapping[str, Tensor]) -> Tensor:
    (x,), config = inputs, node.config
    limit = config["max_value"]
    plain = config["threshold"] == config["negative_slope"] == 0
    if plain and limit in (None, SIX):  # which are operations of their own, and written as such
        return tf.nn.relu(x) if limit is None else tf.nn.relu6(x)
    # by way of NumPy: TensorFlow reads a Python float as float32 before it casts it
    threshold, slope = (tf.cast(np.asarray(config[key]), x.dtype) for key in ("threshold", "negative_slope"))
    if config["threshold"] == 0 and 0 <= config["negative_slope"] < 1:
        kept = tf.nn.relu(x) if plain else tf.maximum(slope * x, x)
    else:
        kept = tf.where(x > threshold, x, slope * (x - threshold))
    return kept if limit is None else tf.minimum(kept, tf.cast(np.asarray(limit), x.dtype))


SIX = 6.0


@_channels_last
def _pad(node: Node, inputs: Sequence[Tensor], params: Mapping[str, Tensor]) -> Tensor:
    return tf.pad(inputs[0], [[0, 0], *map(list, node.config["padding"]), [0, 0]])


@_channels_last
def _crop(node: Node, inputs: Sequence[Tensor], params: Mapping[str, Tensor]) -> Tensor:
    x = inputs[0]
    ends = [slice(start, size - end) for (start, end), size in zip(node.config["cropping"], tf.unstack(tf.shape(x))[1:-1], strict=True)]
    return x[(slice(None), *ends)]


@_channels_last
def _up_sample(node: Node, inputs: Sequence[Tensor], params: Mapping[str, Tensor]) -> Tensor:
    (x,) = inputs
    if node.config["interpolation"] == "bilinear" and x.dtype == tf.float32:  # TensorFlow's kernel knows no other
        return tf.image.resize(x, tf.shape(x)[1:3] * list(node.config["size"]))
    for axis, times in enumerate(node.config["size"], 1):
        if node.config["interpolation"] == "nearest":
            x = tf.repeat(x, times, axis) if times > 1 else x
        elif times > 1:
            if x.shape[axis] is None:
                raise ValueError(f"node {node.name}: lines between the elements of an axis of unknown size are not known")
            lines = tf.cast(_between(x.shape[axis], times), x.dtype)
            x = tf.experimental.numpy.moveaxis(tf.tensordot(lines, x, [[1], [axis]]), 0, axis)
    return x


def _between(size: int, times: int) -> Any:
    """How much of each element is in each of the new ones, whose centers lie on lines between the old ones': [size·times, size]."""
    at = np.clip((np.arange(size * times) + 0.5) / times - 0.5, 0, size - 1)
    return np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(size)[None]))


def _pool(kind: str) -> Rule:
    @_channels_last
    def pool(node: Node, inputs: Sequence[Tensor], params: Mapping[str, Tensor]) -> Tensor:
        x, config = inputs[0], node.config
        sizes, strides = config["pool_size"], config["strides"]
        known = x.dtype == tf.float32 or (x.dtype == tf.float64 and kind == "MAX" and len(sizes) < 3)
        if known and all(stride <= size for stride, size in zip(strides, sizes, strict=True)):
            return tf.nn.pool(x, sizes, kind, list(strides), _padding(node))
        wide = tf.cast(x, tf.float64)
        if kind == "MAX":
            return tf.cast(reduce(tf.maximum, _taps(node, wide, -np.inf)), x.dtype)
        counts = reduce(tf.add, _taps(node, tf.ones_like(wide[:1, ..., :1]), 0))
        return tf.cast(reduce(tf.add, _taps(node, wide, 0)) / counts, x.dtype)

    return pool


def _taps(node: Node, x: Tensor, fill: float) -> Iterator[Tensor]:
    """What each place of the window sees as the window moves; `fill` is what it sees beside the tensor. One tensor a place."""
    sizes, strides, given = node.config["pool_size"], node.config["strides"], x.shape[1:-1]
    if node.config["padding"] == "same":
        counts = [-(-n // s) for n, s in zip(given, strides, strict=True)]
    else:
        counts = [(n - k) // s + 1 for n, k, s in zip(given, sizes, strides, strict=True)]
    lacking = [max((c - 1) * s + k - n, 0) for n, k, s, c in zip(given, sizes, strides, counts, strict=True)]
    padded = tf.pad(x, [[0, 0], *([short // 2, short - short // 2] for short in lacking), [0, 0]], constant_values=fill)
    for offsets in product(*map(range, sizes)):
        spans = (slice(o, o + (c - 1) * s + 1, s) for o, c, s in zip(offsets, counts, strides, strict=True))
        yield padded[(slice(None), *spans)]


def _global_pool(reduction: Callable[..., Tensor]) -> Rule:
    @_channels_last
    def pool(node: Node, inputs: Sequence[Tensor], params: Mapping[str, Tensor]) -> Tensor:
        return reduction(inputs[0], list(range(1, inputs[0].shape.rank - 1)), keepdims=True)

    def squeezed(node: Node, inputs: Sequence[Tensor], params: Mapping[str, Tensor]) -> Tensor:
        value = pool(node, inputs, params)
        if node.config["keepdims"]:
            return value
        first = node.config.get("data_format") == "channels_first"
        return tf.squeeze(value, list(range(2, value.shape.rank) if first else range(1, value.shape.rank - 1)))

    return squeezed


def _of_each(function: Callable[[Tensor], Tensor]) -> Rule:
    return lambda node, inputs, params: function(inputs[0])


def _joined(function: Callable[[Tensor, Tensor], Tensor]) -> Rule:
    return lambda node, inputs, params: reduce(function, inputs)


def _const(node: Node, inputs: Sequence[Tensor], params: Mapping[str, Tensor]) -> Tensor:
    value, shape = params["value"], node.specs[0].shape
    return value if shape is None or None in shape or tuple(value.shape) == shape else tf.reshape(value, shape)


def _sizes(x: Tensor) -> list[Any]:
    """The sizes of the axes: numbers where they are known, tensors where they are not yet."""
    return [tf.shape(x)[place] if size is None else size for place, size in enumerate(x.shape)]


def _hard_sigmoid(x: Tensor) -> Tensor:
    return tf.clip_by_value(x / 6 + tf.cast(0.5, x.dtype), 0, 1)


LOWERING: Mapping[str, Rule] = {
    "Const": _const,
    "Conv": _conv,
    "DepthwiseConv": _depthwise_conv,
    "ConvTranspose": _conv_transpose,
    "SeparableConv": _separable_conv,
    "Dense": _dense,
    "BatchNorm": _batch_norm,
    "Relu": _relu,
    "PRelu": lambda node, inputs, params: tf.nn.relu(inputs[0]) - params["alpha"] * tf.nn.relu(-inputs[0]),
    "Sigmoid": _of_each(tf.sigmoid),
    "HardSigmoid": _of_each(_hard_sigmoid),
    "Tanh": _of_each(tf.tanh),
    "Silu": _of_each(lambda x: x * tf.sigmoid(x)),
    "HardSilu": _of_each(lambda x: x * _hard_sigmoid(x)),
    "Softplus": _of_each(tf.math.softplus),
    "Exp": _of_each(tf.exp),
    "Softmax": _of_each(tf.nn.softmax),
    "Add": _joined(tf.add),
    "Subtract": _joined(tf.subtract),
    "Multiply": _joined(tf.multiply),
    "Maximum": _joined(tf.maximum),
    "Minimum": _joined(tf.minimum),
    "Concat": lambda node, inputs, params: tf.concat(list(inputs), node.config["axis"]),
    "Pad": _pad,
    "Crop": _crop,
    "UpSample": _up_sample,
    "MaxPool": _pool("MAX"),
    "AvgPool": _pool("AVG"),
    "GlobalMaxPool": _global_pool(tf.reduce_max),
    "GlobalAvgPool": _global_pool(tf.reduce_mean),
    "Identity": _of_each(tf.identity),
    "Dropout": _of_each(tf.identity),
    "Flatten": lambda node, inputs, params: tf.reshape(inputs[0], [_sizes(inputs[0])[0], -1]),
    "Reshape": lambda node, inputs, params: tf.reshape(inputs[0], [_sizes(inputs[0])[0], *node.config["target_shape"]]),
}

"""Shape rules of the canonical operations: input shapes and parameter shapes to output shapes, None for an unknown dimension."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from tfpasses.graph.errors import ShapeError
from tfpasses.graph.node import Node

__all__ = ["Shape", "channel_axis", "infer_shape"]

Shape = tuple[int | None, ...]
Rule = Callable[[Node, Sequence[Shape], Mapping[str, Shape]], Shape]


def channel_axis(node: Node, rank: int) -> int:
    """The axis of a node's channels in a tensor of `rank` axes, from its `data_format`."""
    return 1 if node.config.get("data_format") == "channels_first" else rank - 1


def infer_shape(node: Node, inputs: Sequence[Shape | None], params: Mapping[str, Shape]) -> Shape | None:
    """The node's output shape, or None where its operation has no rule (opaque ones, inputs and constants) or an input no known rank.

    Raises `ShapeError` where the inputs or parameters do not fit the operation.
    """
    rule = RULES.get(node.op)
    try:
        known = [shape for shape in inputs if shape is not None]
        return rule(node, known, params) if rule and len(known) == len(inputs) else None
    except (IndexError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ShapeError):
            raise
        raise ShapeError(
            f"node {node.name}: {node.op} does not fit its inputs {list(inputs)} and parameters {dict(params)}: {error}"
        ) from error


def _require(condition: bool, node: Node, message: str) -> None:
    if not condition:
        raise ShapeError(f"node {node.name}: {message}")


def _same(a: int | None, b: int | None) -> bool:
    return a is None or b is None or a == b


def _window(size: int | None, kernel: int, stride: int, padding: str, dilation: int = 1) -> int | None:
    if size is None:
        return None
    if padding == "valid":
        return (size - dilation * (kernel - 1) - 1) // stride + 1
    return -(-size // stride)


def _spatial(node: Node, shape: Shape) -> tuple[int, Shape]:
    axis = channel_axis(node, len(shape))
    return axis, (shape[2:] if axis == 1 else shape[1:-1])


def _assemble(axis: int, batch: int | None, spatial: Sequence[int | None], channels: int | None) -> Shape:
    return (batch, channels, *spatial) if axis == 1 else (batch, *spatial, channels)


def _check_bias(node: Node, params: Mapping[str, Shape], channels: int) -> None:
    _require(params.get("bias", (channels,)) == (channels,), node, f"bias has shape {params.get('bias')}, {channels} channels expected")


def _convolution(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    (shape,), config = inputs, node.config
    axis, spatial = _spatial(node, shape)
    kernel = params["depthwise_kernel" if node.op == "SeparableConv" else "kernel"]
    sizes, (fan_in, last) = kernel[:-2], kernel[-2:]
    _require(len(sizes) == len(spatial), node, f"kernel {kernel} does not fit an input of rank {len(shape)}")
    channels: int = last  # type: ignore[assignment]  # kernels have no unknown dimension
    if node.op == "Conv":
        groups = config["groups"]
        _require(_same(shape[axis], fan_in * groups), node, f"kernel takes {fan_in * groups} channels, the input has {shape[axis]}")
        _require(channels % groups == 0, node, f"{channels} filters do not divide into {groups} groups")
    else:
        _require(_same(shape[axis], fan_in), node, f"kernel takes {fan_in} channels, the input has {shape[axis]}")
        channels *= fan_in  # type: ignore[operator]
    if node.op == "SeparableConv":
        pointwise = params["pointwise_kernel"]
        _require(pointwise[-2] == channels, node, f"pointwise kernel takes {pointwise[-2]} channels, the depthwise one gives {channels}")
        channels = pointwise[-1]  # type: ignore[assignment]
    _check_bias(node, params, channels)
    out = [
        _window(size, k, s, config["padding"], d)  # type: ignore[arg-type]
        for size, k, s, d in zip(spatial, sizes, config["strides"], config["dilation"], strict=True)
    ]
    return _assemble(axis, shape[0], out, channels)


def _transposed(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    (shape,), config = inputs, node.config
    axis, spatial = _spatial(node, shape)
    *sizes, channels, fan_in = params["kernel"]
    _require(_same(shape[axis], fan_in), node, f"kernel takes {fan_in} channels, the input has {shape[axis]}")
    _check_bias(node, params, channels)  # type: ignore[arg-type]
    paddings = config["output_padding"] or (None,) * len(sizes)
    out: list[int | None] = []
    for size, k, s, d, extra in zip(spatial, sizes, config["strides"], config["dilation"], paddings, strict=True):
        reach = (k - 1) * d + 1  # type: ignore[operator]
        if size is None:
            out.append(None)
        elif extra is None:
            out.append(size * s if config["padding"] == "same" else (size - 1) * s + max(reach, s))
        else:
            cut = 2 * (reach // 2) if config["padding"] == "same" else 0
            out.append((size - 1) * s + reach - cut + extra)
    return _assemble(axis, shape[0], out, channels)


def _dense(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    (shape,), (fan_in, units) = inputs, params["kernel"]
    _require(_same(shape[-1], fan_in), node, f"kernel takes {fan_in} features, the input has {shape[-1]}")
    _check_bias(node, params, units)  # type: ignore[arg-type]
    return (*shape[:-1], units)


def _batch_norm(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    (shape,) = inputs
    for slot, size in params.items():
        _require(
            _same(shape[node.config["axis"]], size[0]), node, f"{slot} has shape {size}, the input {shape} on axis {node.config['axis']}"
        )
    return shape


def _unary(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    (shape,) = inputs
    return shape


def _prelu(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    (shape,), slopes = inputs, params["alpha"]
    fits = len(slopes) == len(shape) - 1 and all(a == 1 or _same(a, b) for a, b in zip(slopes, shape[1:], strict=True))
    _require(fits, node, f"slopes of shape {slopes} do not fit an input of shape {shape}")
    return shape


def _broadcast(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    rank = max(map(len, inputs))
    out: list[int | None] = []
    for dims in zip(*[(1,) * (rank - len(shape)) + tuple(shape) for shape in inputs], strict=True):
        known = {d for d in dims if d is not None and d != 1}
        _require(len(known) <= 1, node, f"shapes {list(inputs)} do not broadcast")
        out.append(known.pop() if known else (None if None in dims else 1))
    return tuple(out)


def _concat(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    first, axis = inputs[0], node.config["axis"] % len(inputs[0])
    for shape in inputs:
        fits = len(shape) == len(first) and all(_same(a, b) for i, (a, b) in enumerate(zip(shape, first, strict=True)) if i != axis)
        _require(fits, node, f"shapes {list(inputs)} differ outside axis {axis}")
    dims = [shape[axis] for shape in inputs]
    merged = [next((shape[i] for shape in inputs if shape[i] is not None), None) for i in range(len(first))]
    merged[axis] = None if None in dims else sum(d for d in dims if d is not None)
    return tuple(merged)


def _pad(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    (shape,) = inputs
    axis, spatial = _spatial(node, shape)
    out = [None if size is None else size + sum(pads) for size, pads in zip(spatial, node.config["padding"], strict=True)]
    return _assemble(axis, shape[0], out, shape[axis])


def _crop(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    (shape,) = inputs
    axis, spatial = _spatial(node, shape)
    out = [None if size is None else size - sum(ends) for size, ends in zip(spatial, node.config["cropping"], strict=True)]
    _require(all(size is None or size > 0 for size in out), node, f"nothing is left of {shape}")
    return _assemble(axis, shape[0], out, shape[axis])


def _up_sample(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    (shape,) = inputs
    axis, spatial = _spatial(node, shape)
    out = [None if size is None else size * times for size, times in zip(spatial, node.config["size"], strict=True)]
    return _assemble(axis, shape[0], out, shape[axis])


def _pool(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    (shape,), config = inputs, node.config
    axis, spatial = _spatial(node, shape)
    out = [_window(size, k, s, config["padding"]) for size, k, s in zip(spatial, config["pool_size"], config["strides"], strict=True)]
    return _assemble(axis, shape[0], out, shape[axis])


def _global_pool(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    (shape,) = inputs
    axis, spatial = _spatial(node, shape)
    return _assemble(axis, shape[0], (1,) * len(spatial), shape[axis]) if node.config["keepdims"] else (shape[0], shape[axis])


def _flatten(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    (shape,) = inputs
    rest = shape[1:]
    return (shape[0], None if None in rest else math.prod(d for d in rest if d is not None))


def _reshape(node: Node, inputs: Sequence[Shape], params: Mapping[str, Shape]) -> Shape:
    (shape,), target = inputs, node.config["target_shape"]
    rest = shape[1:]
    if None in rest:
        return (shape[0], *(None if d == -1 else d for d in target))
    total, known = math.prod(d for d in rest if d is not None), math.prod(d for d in target if d != -1)
    _require(total == known or (-1 in target and known > 0 and total % known == 0), node, f"{rest} does not reshape to {target}")
    return (shape[0], *(total // known if d == -1 else d for d in target))


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("Conv", "DepthwiseConv", "SeparableConv"), _convolution),
    "ConvTranspose": _transposed,
    "Dense": _dense,
    "BatchNorm": _batch_norm,
    **dict.fromkeys(
        ("Relu", "Sigmoid", "HardSigmoid", "Tanh", "Silu", "HardSilu", "Softplus", "Exp", "Softmax", "Identity", "Dropout"), _unary
    ),
    "PRelu": _prelu,
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Maximum", "Minimum"), _broadcast),
    "Concat": _concat,
    "Pad": _pad,
    "Crop": _crop,
    "UpSample": _up_sample,
    **dict.fromkeys(("MaxPool", "AvgPool"), _pool),
    **dict.fromkeys(("GlobalMaxPool", "GlobalAvgPool"), _global_pool),
    "Flatten": _flatten,
    "Reshape": _reshape,
}

"""Linear operations: convolutions and matrix products, with their biases, their dilation apart, and one spatial axis as one of two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfpasses.graph import Array, Edit, LinearView, Node, Ref, channel_axis
from tfpasses.passes.raising.cluster import Raising, vector_axis
from tfpasses.passes.raising.sums import Sum, elements_of, sizes_of
from tfpasses.pattern import Match, Miss, Pattern, Rule, anything, op

__all__ = ["conv_config", "linear_rules", "without_axis"]

CONVS = ("tf.Conv2D", "tf.Conv3D")
PADDINGS = {"SAME": "same", "VALID": "valid"}
KERNEL = op("Const")["kernel"]
WINDOWS = ("Conv", "DepthwiseConv", "SeparableConv", "ConvTranspose", "MaxPool", "AvgPool")
MATRIX = 2
PLANE = 4
"""The rank of images of two spatial axes."""


def conv_config(node: Node, rank: int) -> dict[str, Any] | str:
    """The canonical configuration of TensorFlow's, as far as convolutions and pools have it in common; or why there is none."""
    padding = PADDINGS.get(str(node.config["padding"]))
    if padding is None:
        return f"its padding is {node.config['padding']}"
    first = str(node.config.get("data_format", "N..C")).startswith("NC")
    spatial = slice(2, rank) if first else slice(1, rank - 1)
    strides, dilations = tuple(node.config["strides"]), tuple(node.config.get("dilations") or [1] * rank)
    if len(strides) != rank or len(dilations) != rank or min(*strides, *dilations) < 1:
        return f"its strides {strides} or dilations {dilations} are none"
    return {
        "strides": strides[spatial],
        "padding": padding,
        "dilation": dilations[spatial],
        "data_format": "channels_first" if first else "channels_last",
    }


def linear_rules(raising: Raising) -> Sequence[Rule]:
    """The rules that raise to operations of the `linear` trait."""

    def kernel_shape(match: Match, edit: Edit) -> tuple[int, ...]:
        return tuple(size or 0 for size in edit.spec(match.ref("kernel")).dims)

    def conv(match: Match, edit: Edit) -> Miss | None:
        """Conv2D and Conv3D; what the kernel lacks in input channels is groups."""
        node, x = edit.nodes[match.root.name], match.ref("x")
        kernel, shape = kernel_shape(match, edit), edit.spec(x).shape
        if shape is None or len(shape) != len(kernel):
            return match.miss("the rank of what it reads is not known, or not its kernel's")
        config = conv_config(node, len(kernel))
        if isinstance(config, str):
            return match.miss(config)
        channels = shape[1 if config["data_format"] == "channels_first" else -1]
        if not channels or not kernel[-2] or channels % kernel[-2]:
            return match.miss(f"its kernel takes {kernel[-2]} channels, what it reads has {channels}")
        return raising(match, edit, "Conv", (x,), {**config, "groups": channels // kernel[-2]}, {"kernel": (match["kernel"], kernel)})

    def depthwise(match: Match, edit: Edit) -> Miss | None:
        """DepthwiseConv2dNative."""
        config = conv_config(edit.nodes[match.root.name], PLANE)
        if isinstance(config, str):
            return match.miss(config)
        return raising(match, edit, "DepthwiseConv", (match.ref("x"),), config, {"kernel": (match["kernel"], kernel_shape(match, edit))})

    def transposed(match: Match, edit: Edit) -> Miss | None:
        """Conv2DBackpropInput and Conv3DBackpropInputV2, whose output's size is that of its input times the strides, or so much more."""
        node, x, kernel = edit.nodes[match.root.name], match.ref("x"), kernel_shape(match, edit)
        shape, out = edit.spec(x).shape, sizes_asked_for(match, node, edit)
        config = conv_config(node, len(kernel))
        if isinstance(config, str):
            return match.miss(config)
        if shape is None or out is None or len(shape) != len(kernel) or len(out) != len(kernel):
            return match.miss("the rank of what it reads or gives is not known, or not its kernel's")
        first = config["data_format"] == "channels_first"
        spatial = slice(2, None) if first else slice(1, -1)
        extra = output_padding(sizes_of(x, edit)[spatial], out[spatial], kernel[:-2], config)
        if isinstance(extra, str):
            return match.miss(extra)
        return raising(match, edit, "ConvTranspose", (x,), {**config, "output_padding": extra}, {"kernel": (match["kernel"], kernel)})

    def transposed_of_one_axis(match: Match, edit: Edit) -> Miss | None:
        """The same between the two spatial axes that one is made, and back."""
        x, inner, kernel = match.ref("x"), match["inner"], kernel_shape(match, edit)
        axis = axis_between(match, edit, inner.config.get("data_format") == "NCHW")
        shape, out = edit.spec(x).shape, sizes_asked_for(match, inner, edit)
        config = conv_config(inner, PLANE)
        if isinstance(config, str) or axis is None or shape is None or out is None or len(shape) != PLANE - 1 or kernel[axis] != 1:
            return match.miss(
                config if isinstance(config, str) else "it works along the axis that is taken out, or its shapes are not known"
            )
        first = config["data_format"] == "channels_first"
        sizes, wanted = (list(dims[2:] if first else dims[1:-1]) for dims in (sizes_of(x, edit), out))
        del wanted[axis]
        config = {
            key: tuple(v for place, v in enumerate(value) if place != axis) if isinstance(value, tuple) else value
            for key, value in config.items()
        }
        kernel = (*kernel[:axis], *kernel[axis + 1 :])
        extra = output_padding(sizes, wanted, kernel[:-2], config)
        if isinstance(extra, str):
            return match.miss(extra)
        return raising(match, edit, "ConvTranspose", (x,), {**config, "output_padding": extra}, {"kernel": (match["kernel"], kernel)})

    def matmul(match: Match, edit: Edit) -> Miss | None:
        """MatMul with a constant, and the batched kind."""
        node, x = edit.nodes[match.root.name], match.ref("x")
        plain = node.op == "tf.MatMul"
        if node.config.get("transpose_a" if plain else "adj_x", False):
            return match.miss("it transposes what it reads")
        shape = kernel_shape(match, edit)
        if len(shape) < MATRIX:
            return match.miss("its kernel is no matrix")
        *ones, a, b = shape
        if any(size != 1 for size in ones):
            return match.miss("it has a matrix of its own for each element of the batch")
        if not node.config.get("transpose_b" if plain else "adj_y", False):
            return raising(match, edit, "Dense", (x,), {}, {"kernel": (match["kernel"], (a, b))})
        kernel = edit.weights[match["kernel"].params["value"]].reshape(a, b).T
        return raising(match, edit, "Dense", (x,), {}, computed={"kernel": np.ascontiguousarray(kernel)})

    def dense_of_rows(match: Match, edit: Edit) -> Miss | None:
        """A matrix product of all rows at once, and back to the axes that there were."""
        x, node, dense = match.ref("x"), edit.nodes[match.root.name], match["dense"]
        shape, out = edit.spec(x).shape, node.specs[0].shape
        rows = edit.spec(Ref(match["rows"].name)).shape
        if shape is None or out is None or rows is None or len(shape) != len(out) or rows[-1] != shape[-1]:
            return match.miss("its shapes are not known, or it is no product over the last axis")
        width = edit.weights[dense.params["kernel"]].shape[1]
        if out[-1] != width or not keeps_axes(x, out, match.ref("sizes"), edit):
            return match.miss(f"it makes {list(out)} of {list(shape)}")
        order = match.get("order")
        if order is not None and edit.weights[order.params["value"]].tolist() != list(range(len(shape))):
            return match.miss("it transposes what it reads")
        return raising.absorb(match, edit, "Dense", (x,), dense, {})

    def bias(match: Match, edit: Edit) -> Miss | None:
        """A constant per channel, added to what a linear node gives."""
        node, linear, constant = edit.nodes[match.root.name], match["linear"], match["bias"]
        view, dims = LinearView.of(linear, edit), edit.spec(Ref(linear.name)).dims
        axis, rank = vector_axis(edit.spec(Ref(constant.name)).dims, dims), len(dims)
        if node.op == "tf.BiasAdd":
            axis = 1 if node.config.get("data_format") == "NCHW" and rank > 2 else rank - 1
        size = edit.weights[constant.params["value"]].size
        if "bias" in linear.params or axis != view.channel_axis(rank) or size != view.out_channels:
            return match.miss("it has a bias already, or this is none: no element per channel")
        return raising.absorb(match, edit, linear.op, linear.inputs, linear, linear.config, {"bias": (constant, (size,))})

    def dilated(match: Match, edit: Edit) -> Miss | None:
        """Space to batch, a convolution, and back: a dilated convolution."""
        x, node = match.ref("x"), edit.nodes[match.root.name]
        linear = match["linear"]
        config = linear.config
        blocks, back = (edit.weights[match[name].params["value"]] for name in ("blocks", "blocks back"))
        rates = tuple(int(rate) for rate in blocks.ravel())
        shape, out = edit.spec(x).shape, node.specs[0].shape
        pads, crops = elements_of(match.ref("pads"), edit), elements_of(match.ref("crops"), edit)
        kernel = edit.weights[linear.params["depthwise_kernel" if linear.op == "SeparableConv" else "kernel"]].shape
        if not np.array_equal(blocks, back) or config["padding"] != "valid" or config["data_format"] != "channels_last":
            return match.miss("its blocks differ, or what lies between pads or has its channels first")
        if any(size != 1 for size in (*config["dilation"], *config["strides"])) or "bias" in linear.params:
            return match.miss("what lies between has strides, dilation or a bias of its own")
        if shape is None or out is None or len(rates) != len(shape) - 2 or len(out) != len(shape):
            return match.miss("its shapes are not known")
        if pads is None or crops is None or pads.size != 2 * len(rates) or crops.size != pads.size:
            return match.miss("it pads no pair of ends of each axis")
        padding = dilated_padding(kernel[:-2], rates, pads.reshape(-1, 2), crops.reshape(-1, 2))
        if padding is None:
            return match.miss("it pads in another way than `valid` or `same`")
        return raising.absorb(match, edit, linear.op, (x,), linear, {**config, "padding": padding, "dilation": rates})

    def one_axis(match: Match, edit: Edit) -> Miss | None:
        """An operation over two spatial axes, one of which was put in before and is taken out behind."""
        x, inner = match.ref("x"), match["inner"]
        axis = axis_between(match, edit, channel_axis(inner, PLANE) == 1)
        if axis is None or len(edit.spec(Ref(inner.name)).dims) != PLANE:
            return match.miss("it takes out another axis than was put in")
        config = without_axis(inner, axis, edit)
        if config is None:
            return match.miss("what lies between works along that axis too")
        params = {slot: edit.weights[key].shape for slot, key in inner.params.items()}
        kernels = {slot: (inner.params[slot], (*shape[:axis], *shape[axis + 1 :])) for slot, shape in params.items() if slot != "bias"}
        whole = {slot: (inner.params[slot], shape) for slot, shape in params.items() if slot == "bias"}
        return raising(match, edit, inner.op, (x,), config, {**kernels, **whole})

    def separable(match: Match, edit: Edit) -> Miss | None:
        """Along one axis of two, a depthwise convolution and a pointwise one: nothing of one axis lies between."""
        x, depthwise, pointwise = match.ref("x"), match["depthwise"], match["pointwise"]
        kernel = edit.weights[pointwise.params["kernel"]]
        if not is_pointwise(depthwise, pointwise, edit):
            return match.miss("the second is not pointwise, or one of them has a bias")
        axis = axis_between(match, edit, channel_axis(depthwise, PLANE) == 1)
        reduced = None if axis is None else without_axis(depthwise, axis, edit)
        if axis is None or reduced is None:
            return match.miss("it takes out another axis than was put in")
        shapes = {
            "depthwise_kernel": (depthwise.params["kernel"], edit.weights[depthwise.params["kernel"]].shape),
            "pointwise_kernel": (pointwise.params["kernel"], kernel.shape),
        }
        kernels = {slot: (key, (*shape[:axis], *shape[axis + 1 :])) for slot, (key, shape) in shapes.items()}
        return raising(match, edit, "SeparableConv", (x,), reduced, kernels)

    def turned(match: Match, edit: Edit) -> Miss | None:
        """Channels first: the channels are moved to the end before, and back behind."""
        x, inner = match.ref("x"), match["inner"]
        orders = [edit.weights[match[name].params["value"]].ravel().tolist() for name in ("order", "order back")]
        rank = len(orders[0])
        if orders != [[0, *range(2, rank), 1], [0, rank - 1, *range(1, rank - 1)]] or inner.config.get("data_format") != "channels_last":
            return match.miss("it does not move the channels to the end and back")
        return raising.absorb(match, edit, inner.op, (x,), inner, {**inner.config, "data_format": "channels_first"})

    def separable_turned(match: Match, edit: Edit) -> Miss | None:
        """The same around a depthwise convolution and a pointwise one."""
        x, depthwise, pointwise = match.ref("x"), match["depthwise"], match["inner"]
        orders = [edit.weights[match[name].params["value"]].ravel().tolist() for name in ("order", "order back")]
        if orders != [[0, 2, 3, 1], [0, 3, 1, 2]] or not is_pointwise(depthwise, pointwise, edit):
            return match.miss("it does not move the channels to the end and back, or the second is not pointwise")
        kernels = {f"{name}_kernel": node.params["kernel"] for name, node in (("depthwise", depthwise), ("pointwise", pointwise))}
        config = {**depthwise.config, "data_format": "channels_first"}
        return raising(match, edit, "SeparableConv", (x,), config, {slot: (key, edit.weights[key].shape) for slot, key in kernels.items()})

    def back(inner: Pattern) -> Pattern:
        return op("tf.Transpose")(inner, op("Const")["order back"])

    x, any_linear, dense = anything()["x"], op(trait="linear")["linear"], op("Dense")["dense"]
    expanded = op("tf.ExpandDims")(x, op("Const")["place"])
    first = op("tf.Transpose")(x, op("Const")["order"])
    rows = op("tf.Reshape")(x, anything())["rows"]
    rows_turned = op("tf.Reshape")(op("tf.Transpose")(x, op("Const")["order"]), anything())["rows"]
    return [
        Rule.of("conv", op(*CONVS)(x, KERNEL), conv),
        Rule.of("depthwise conv", op("tf.DepthwiseConv2dNative")(x, KERNEL), depthwise),
        Rule.of("transposed conv", op("tf.Conv2DBackpropInput", "tf.Conv3DBackpropInputV2")(anything()["sizes"], KERNEL, x), transposed),
        Rule.of("matrix product", op("tf.MatMul", "tf.BatchMatMul", "tf.BatchMatMulV2")(x, KERNEL), matmul),
        Rule.of("dense", op("tf.Reshape")(dense(rows_turned) | dense(rows), anything()["sizes"]), dense_of_rows),
        Rule.of("bias", op("tf.BiasAdd", "tf.AddV2", "tf.Add")(any_linear, op("Const")["bias"]).commutative(), bias),
        Rule.of("dilated conv", dilation(op("Conv", "DepthwiseConv")["linear"]), dilated),
        Rule.of("one spatial axis", op("tf.Squeeze")(op(*WINDOWS)["inner"](expanded)), one_axis),
        Rule.of(
            "transposed conv of one axis",
            op("tf.Squeeze")(op("tf.Conv2DBackpropInput")["inner"](anything()["sizes"], KERNEL, expanded)),
            transposed_of_one_axis,
        ),
        Rule.of("channels first", back(op(*WINDOWS)["inner"](first)), turned),
        Rule.of("separable conv, channels first", back(op("Conv")["inner"](op("DepthwiseConv")["depthwise"](first))), separable_turned),
        Rule.of(
            "separable conv of one axis",
            op("tf.Squeeze")(op("Conv")["pointwise"](op("DepthwiseConv")["depthwise"](expanded))),
            separable,
        ),
    ]


def axis_between(match: Match, edit: Edit, first: bool) -> int | None:
    """Which of two spatial axes is put in (at `place`) and taken out again (by the root); None where it is no such axis."""
    places = edit.weights[match["place"].params["value"]]
    if places.size != 1:
        return None
    place = int(places.reshape(-1)[0]) % PLANE
    gone = edit.nodes[match.root.name].config.get("squeeze_dims") or []
    axis = place - (2 if first else 1)
    return axis if len(gone) == 1 and gone[0] % PLANE == place and axis in (0, 1) else None


def is_pointwise(depthwise: Node, pointwise: Node, edit: Edit) -> bool:
    """Whether two convolutions are the two of a separable one."""
    kernel, config = edit.weights[pointwise.params["kernel"]], pointwise.config
    plain = all(size == 1 for size in (*kernel.shape[:-2], *config["strides"], *config["dilation"])) and config["groups"] == 1
    return plain and not {"bias"} & (depthwise.params.keys() | pointwise.params.keys())


def dilation(linear: Any) -> Pattern:
    """Space to batch, a linear operation, and back."""
    spread = op("tf.SpaceToBatchND")(anything()["x"], op("Const")["blocks"], anything()["pads"])
    return op("tf.BatchToSpaceND")(linear(spread), op("Const")["blocks back"], anything()["crops"])


def keeps_axes(x: Ref, out: Sequence[int | None], sizes: Ref, edit: Edit) -> bool:
    """Whether all axes of `x` but the last stay as they are in a value of `sizes`; `out` is what is known of them."""
    shape = edit.spec(x).dims
    if None not in shape[1:-1] and shape[:-1] == out[:-1]:
        return True
    told = elements_of(sizes, edit)
    return told is not None and tuple(told[:-1]) == tuple(sizes_of(x, edit)[:-1])


def without_axis(node: Node, axis: int, edit: Edit) -> dict[str, Any] | None:
    """The configuration of a window operation without one of two spatial axes; None where it works along that axis."""
    config = dict(node.config)
    sizes = config.get("pool_size")
    if sizes is None:
        kernel = node.params["depthwise_kernel" if node.op == "SeparableConv" else "kernel"]
        sizes = edit.weights[kernel].shape[:-2]
    if sizes[axis] != 1:
        return None
    for key in ("strides", "dilation", "pool_size", "output_padding"):
        value = config.get(key)
        if value is not None:
            config[key] = (*value[:axis], *value[axis + 1 :])
    return config


def sizes_asked_for(match: Match, node: Node, edit: Edit) -> Sequence[Sum] | None:
    """The sizes of what a transposed convolution gives, as it is told them; None where their number is not known."""
    told = elements_of(match.ref("sizes"), edit)
    known = node.specs[0].shape
    if told is None or known is None or len(told) != len(known):
        return None if known is None or None in known else sizes_of(Ref(node.name), edit)
    return [one if size is None else Sum(size) for one, size in zip(told, known, strict=True)]


def output_padding(
    sizes: Sequence[Sum], out: Sequence[Sum], kernel: Sequence[int], config: Mapping[str, Any]
) -> tuple[int, ...] | str | None:
    """What a transposed convolution adds to the size it would have, None where that is nothing special; or why it is not to be told."""
    plain, extra = True, []
    for size, wanted, k, s, d in zip(sizes, out, kernel, config["strides"], config["dilation"], strict=True):
        more = (wanted - size * Sum(s)).known
        if more is None:
            return "the size of its output is not known"
        reach, same = (k - 1) * d + 1, config["padding"] == "same"
        plain &= more == (0 if same else max(reach, s) - s)
        extra.append(more + s - reach + (2 * (reach // 2) if same else 0))
    if plain:
        return None
    return tuple(extra) if all(more >= 0 for more in extra) else "its output is smaller than its kernel makes it"


def dilated_padding(kernel: Sequence[int], rates: Sequence[int], pads: Array, crops: Array) -> str | None:
    """`valid` or `same`, whichever a convolution between space to batch and back does along all axes. What is padded for the sake of whole
    blocks is cropped again.
    """
    kinds = {"valid", "same"}
    for k, rate, (before, behind), (cut, cut_behind) in zip(kernel, rates, pads, crops, strict=True):
        ends, reach = (before.known, (behind - cut_behind).known), (k - 1) * rate
        if cut.known != 0 or ends != (0, 0):
            kinds.discard("valid")
        if cut.known != 0 or ends != (reach // 2, reach - reach // 2):
            kinds.discard("same")
    return "valid" if "valid" in kinds else kinds.pop() if kinds else None

"""The table between Keras's layers and operations and the canonical vocabulary, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import keras
import numpy as np
import tensorflow as tf
from keras import layers as L
from keras.src import ops as O
from keras.src.activations.activations import ReLU as ReluOperation

from tfpasses.graph import Array, Node

__all__ = ["ACTIVATIONS", "KINDS", "OPERATIONS", "Kind", "activation_of", "kind_of", "relu_config"]

Config = dict[str, Any]


@attrs.frozen(eq=False)
class Kind:
    """How a Keras layer class and a canonical operation correspond."""

    op: str
    classes: tuple[type, ...]
    """By number of spatial axes where there are several: 1-D, 2-D, 3-D."""
    read: Callable[[Any], Config]
    """The canonical configuration of a layer."""
    write: Callable[[Node, Mapping[str, Array]], Config]
    """The constructor's arguments that say the same as a node's configuration and parameters."""
    weights: Mapping[str, str] = {}
    """Parameter slot -> the layer's attribute that holds the variable."""
    initializers: Mapping[str, str] = {}
    """Parameter slot -> the constructor's argument that initialises the variable."""

    def layer_class(self, spatial: int) -> type:
        """The class for a number of spatial axes."""
        return self.classes[spatial - 1] if len(self.classes) > 1 else self.classes[0]


def _tuple(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, list | tuple) else (int(value),)


def _conv_config(layer: Any) -> Config:
    return {
        "strides": _tuple(layer.strides),
        "padding": layer.padding,
        "dilation": _tuple(layer.dilation_rate),
        "data_format": layer.data_format,
    }


def _conv_arguments(node: Node, params: Mapping[str, Array]) -> Config:
    config = node.config
    kernel = params["depthwise_kernel" if node.op == "SeparableConv" else "kernel"]
    arguments = {
        "kernel_size": kernel.shape[:-2],
        "strides": config["strides"],
        "padding": config["padding"],
        "dilation_rate": config["dilation"],
        "data_format": config["data_format"],
        "use_bias": "bias" in params,
    }
    if node.op == "Conv":
        return {**arguments, "filters": kernel.shape[-1], "groups": config["groups"]}
    if node.op == "ConvTranspose":
        return {**arguments, "filters": kernel.shape[-2], "output_padding": config["output_padding"]}
    if node.op == "SeparableConv":
        arguments["filters"] = params["pointwise_kernel"].shape[-1]
    return {**arguments, "depth_multiplier": kernel.shape[-1]}


def _transpose_config(layer: Any) -> Config:
    extra = layer.output_padding
    return {
        **_conv_config(layer),
        "output_padding": None if extra is None else _tuple(extra) * (len(layer.kernel_size) if isinstance(extra, int) else 1),
    }


def _norm_arguments(node: Node, params: Mapping[str, Array]) -> Config:
    return {"axis": node.config["axis"], "epsilon": node.config["epsilon"], "center": "beta" in params, "scale": "gamma" in params}


def relu_config(max_value: Any = None, negative_slope: Any = 0.0, threshold: Any = 0.0) -> Config:
    """The configuration of a canonical `Relu`."""
    return {
        "max_value": None if max_value is None else float(max_value),
        "negative_slope": float(negative_slope or 0.0),
        "threshold": float(threshold or 0.0),
    }


def _pool_config(layer: Any) -> Config:
    return {
        "pool_size": _tuple(layer.pool_size),
        "strides": _tuple(layer.strides),
        "padding": layer.padding,
        "data_format": layer.data_format,
    }


def _ends_config(name: str) -> Callable[[Any], Config]:
    """What is added to, or taken from, both ends of each spatial axis."""

    def read(layer: Any) -> Config:
        ends = getattr(layer, name)
        pairs = ends if isinstance(ends[0], list | tuple) else (ends,)
        return {name: tuple(_tuple(pair) for pair in pairs), "data_format": getattr(layer, "data_format", "channels_last")}

    return read


def _ends_arguments(name: str) -> Callable[[Node, Mapping[str, Array]], Config]:
    def write(node: Node, params: Mapping[str, Array]) -> Config:
        ends = node.config[name]
        arguments = {name: ends[0] if len(ends) == 1 else ends, "data_format": node.config["data_format"]}
        if (name, len(ends)) == ("cropping", 1):
            del arguments["data_format"]  # Cropping1D alone does not take it
        return arguments

    return write


def _up_config(layer: Any) -> Config:
    return {
        "size": _tuple(layer.size),
        "interpolation": getattr(layer, "interpolation", "nearest"),
        "data_format": getattr(layer, "data_format", "channels_last"),
    }


def _up_arguments(node: Node, params: Mapping[str, Array]) -> Config:
    """Of one spatial axis there is no data format, and of one or three no interpolation."""
    size = node.config["size"]
    names = {1: (), 2: ("data_format", "interpolation")}.get(len(size), ("data_format",))
    return {"size": size if len(size) > 1 else size[0], **{name: node.config[name] for name in names}}


def _same_names(*names: str) -> Callable[[Node, Mapping[str, Array]], Config]:
    return lambda node, params: {name: node.config[name] for name in names}


def _nothing(_: Any) -> Config:
    return {}


def _no_arguments(node: Node, params: Mapping[str, Array]) -> Config:
    return {}


_KERNEL = {"kernel": "kernel", "bias": "bias"}
_KERNEL_INIT = {"kernel": "kernel_initializer", "bias": "bias_initializer"}
_DEPTHWISE_INIT = {"kernel": "depthwise_initializer", "bias": "bias_initializer"}
_SEPARABLE = {"depthwise_kernel": "depthwise_kernel", "pointwise_kernel": "pointwise_kernel", "bias": "bias"}
_SEPARABLE_INIT = {"depthwise_kernel": "depthwise_initializer", "pointwise_kernel": "pointwise_initializer", "bias": "bias_initializer"}
_NORM = {"gamma": "gamma", "beta": "beta", "mean": "moving_mean", "variance": "moving_variance"}
_NORM_INIT = {slot: f"{attribute}_initializer" for slot, attribute in _NORM.items()}

_KINDS = (
    Kind("Conv", (L.Conv1D, L.Conv2D, L.Conv3D), lambda y: {**_conv_config(y), "groups": y.groups}, _conv_arguments, _KERNEL, _KERNEL_INIT),
    Kind("DepthwiseConv", (L.DepthwiseConv1D, L.DepthwiseConv2D), _conv_config, _conv_arguments, _KERNEL, _DEPTHWISE_INIT),
    Kind(
        "ConvTranspose",
        (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose),
        _transpose_config,
        _conv_arguments,
        _KERNEL,
        _KERNEL_INIT,
    ),
    Kind("SeparableConv", (L.SeparableConv1D, L.SeparableConv2D), _conv_config, _conv_arguments, _SEPARABLE, _SEPARABLE_INIT),
    Kind("Dense", (L.Dense,), _nothing, lambda n, p: {"units": p["kernel"].shape[-1], "use_bias": "bias" in p}, _KERNEL, _KERNEL_INIT),
    Kind("BatchNorm", (L.BatchNormalization,), lambda y: {"axis": y.axis, "epsilon": y.epsilon}, _norm_arguments, _NORM, _NORM_INIT),
    Kind(
        "Relu",
        (L.ReLU,),
        lambda y: relu_config(y.max_value, y.negative_slope, y.threshold),
        _same_names("max_value", "negative_slope", "threshold"),
    ),
    Kind(
        "PRelu",
        (L.PReLU,),
        lambda y: {"shared_axes": tuple(y.shared_axes or ())},
        lambda n, p: {"shared_axes": list(n.config["shared_axes"]) or None},
        {"alpha": "alpha"},
        {"alpha": "alpha_initializer"},
    ),
    Kind("Softmax", (L.Softmax,), _nothing, _no_arguments),
    *(Kind(op, (getattr(L, op),), _nothing, _no_arguments) for op in ("Add", "Subtract", "Multiply", "Maximum", "Minimum")),
    Kind("Concat", (L.Concatenate,), lambda y: {"axis": y.axis}, _same_names("axis")),
    Kind("Pad", (L.ZeroPadding1D, L.ZeroPadding2D, L.ZeroPadding3D), _ends_config("padding"), _ends_arguments("padding")),
    Kind("Crop", (L.Cropping1D, L.Cropping2D, L.Cropping3D), _ends_config("cropping"), _ends_arguments("cropping")),
    Kind("UpSample", (L.UpSampling1D, L.UpSampling2D, L.UpSampling3D), _up_config, _up_arguments),
    *(
        Kind(op, classes, _pool_config, _same_names("pool_size", "strides", "padding", "data_format"))
        for op, classes in {
            "MaxPool": (L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D),
            "AvgPool": (L.AveragePooling1D, L.AveragePooling2D, L.AveragePooling3D),
        }.items()
    ),
    *(
        Kind(op, classes, lambda y: {"keepdims": y.keepdims, "data_format": y.data_format}, _same_names("keepdims", "data_format"))
        for op, classes in {
            "GlobalMaxPool": (L.GlobalMaxPooling1D, L.GlobalMaxPooling2D, L.GlobalMaxPooling3D),
            "GlobalAvgPool": (L.GlobalAveragePooling1D, L.GlobalAveragePooling2D, L.GlobalAveragePooling3D),
        }.items()
    ),
    Kind("Identity", (L.Identity,), _nothing, _no_arguments),
    Kind("Flatten", (L.Flatten,), _nothing, _no_arguments),
    Kind("Reshape", (L.Reshape,), lambda y: {"target_shape": _tuple(y.target_shape)}, _same_names("target_shape")),
)

KINDS: Mapping[str, Kind] = {kind.op: kind for kind in _KINDS}
"""By canonical operation."""

_BY_CLASS: dict[type, Kind] = {cls: kind for kind in _KINDS for cls in kind.classes}

# Noise that is silent at inference. What they do in training is the source layer's business.
_NOISE = Kind("Dropout", (L.Dropout,), _nothing, _no_arguments)
_BY_CLASS |= dict.fromkeys(
    (L.Dropout, L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D, L.GaussianNoise, L.GaussianDropout, L.AlphaDropout), _NOISE
)
_BY_CLASS[L.ActivityRegularization] = KINDS["Identity"]
_BY_CLASS[L.LeakyReLU] = Kind("Relu", (L.LeakyReLU,), lambda y: relu_config(negative_slope=y.negative_slope), _same_names("negative_slope"))


def kind_of(layer: Any) -> Kind | None:
    """The kind of a layer; None for an opaque one: a foreign class, a subclass, or a known one in a mode that the table lacks."""
    if type(layer) is L.Activation:
        canonical = activation_of(layer.activation)
        return None if canonical is None else Kind(canonical[0], (L.Activation,), lambda _: canonical[1], _no_arguments)
    kind = _BY_CLASS.get(type(layer))
    if kind is None or getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return None
    if len(layer.weights) != sum(getattr(layer, attribute, None) is not None for attribute in kind.weights.values()):
        return None  # renormalising batch norms, and weights that a user has added
    if isinstance(layer, L.Softmax) and layer.axis != -1:
        return None
    if getattr(layer, "interpolation", "nearest") not in ("nearest", "bilinear"):
        return None
    if isinstance(layer, L.Flatten) and layer.data_format == "channels_first":
        return None
    if isinstance(layer, L.Reshape) and None in layer.target_shape:
        return None
    return kind


A = keras.activations
ACTIVATIONS: Mapping[Any, tuple[str, Config]] = {
    A.relu: ("Relu", relu_config()),
    A.relu6: ("Relu", relu_config(6.0)),
    A.leaky_relu: ("Relu", relu_config(negative_slope=0.2)),
    A.sigmoid: ("Sigmoid", {}),
    A.hard_sigmoid: ("HardSigmoid", {}),
    A.tanh: ("Tanh", {}),
    A.silu: ("Silu", {}),
    A.hard_silu: ("HardSilu", {}),
    A.softplus: ("Softplus", {}),
    A.exponential: ("Exp", {}),
    A.softmax: ("Softmax", {}),
    A.linear: ("Identity", {}),
}
"""Those of Keras, by which new layers are written."""
SAME_NAMES = ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "softplus", "softmax")
OTHER_ACTIVATIONS: Mapping[Any, tuple[str, Config]] = {
    getattr(there, name): ACTIVATIONS[getattr(A, name)] for there in (keras.ops, tf.nn) for name in SAME_NAMES
}
"""Functions of the same names that are the same, and may stand where an activation is given."""


def activation_of(function: Any) -> tuple[str, Config] | None:
    """The canonical operation of an activation function, or None where it is opaque."""
    try:
        return ACTIVATIONS.get(function) or OTHER_ACTIVATIONS.get(function)
    except TypeError:  # a callable object that cannot be hashed
        return None


def _plain(op: str) -> Callable[[Any], tuple[str, Config]]:
    return lambda operation: (op, {})


def _clip(operation: Any) -> tuple[str, Config] | None:
    """Between 0 and a number above."""
    low, high = operation.x_min, operation.x_max
    numbers = all(isinstance(limit, int | float | np.number) and not isinstance(limit, bool) for limit in (low, high))
    return ("Relu", relu_config(float(high))) if numbers and low == 0 < high else None


OPERATIONS: Mapping[type, Callable[[Any], tuple[str, Config] | None]] = {
    O.nn.Relu: lambda o: ("Relu", relu_config()),
    O.nn.Relu6: lambda o: ("Relu", relu_config(6.0)),
    O.nn.LeakyRelu: lambda o: ("Relu", relu_config(negative_slope=o.negative_slope)),
    O.nn.Sigmoid: _plain("Sigmoid"),
    O.nn.HardSigmoid: _plain("HardSigmoid"),
    O.nn.Silu: _plain("Silu"),
    O.nn.HardSilu: _plain("HardSilu"),
    O.nn.Softplus: _plain("Softplus"),
    O.nn.Softmax: lambda o: ("Softmax", {}) if o.axis == -1 else None,
    ReluOperation: lambda o: ("Relu", relu_config(o.max_value, o.negative_slope, o.threshold)),
    O.numpy.Clip: _clip,
    O.numpy.Tanh: _plain("Tanh"),
    O.numpy.Exp: _plain("Exp"),
    O.numpy.Add: _plain("Add"),
    O.numpy.Subtract: _plain("Subtract"),
    O.numpy.Multiply: _plain("Multiply"),
    O.numpy.Maximum: _plain("Maximum"),
    O.numpy.Minimum: _plain("Minimum"),
    O.numpy.Concatenate: lambda o: ("Concat", {"axis": o.axis}),
}
"""Keras operation class -> canonical operation and configuration of an instance."""

JOINS: Mapping[str, type] = {op: getattr(O.numpy, op) for op in ("Add", "Subtract", "Multiply", "Maximum", "Minimum")}
"""Canonical operations of two or more inputs that broadcast -> the Keras operation. Its constant arguments become `Const` nodes."""

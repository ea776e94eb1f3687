"""Linear layers before a batch norm, one for each kind and layout, and what folding must make of their weights, written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import keras
import numpy as np
from keras import layers as L

import zoo

__all__ = ["ALL", "CASES", "UNRUNNABLE", "FoldCase", "batch", "bite", "chain", "expected_weights", "own_error_ratio", "scale_and_shift"]

LINE, IMAGE, CUBE = (12, 4), (9, 8, 4), (6, 5, 7, 2)
FIRST = {"data_format": "channels_first"}


@attrs.frozen
class FoldCase:
    """`make(use_bias)` gives the layer; it is called on `shape` without the batch."""

    make: Callable[[bool], Any]
    shape: tuple[int, ...]
    axis: int = -1


def case(cls: type, shape: tuple[int, ...], *args: Any, **options: Any) -> FoldCase:
    axis = 1 if options.get("data_format") == "channels_first" else -1
    return FoldCase(lambda use_bias: cls(*args, use_bias=use_bias, name="linear", **options), shape, axis)


CASES: dict[str, FoldCase] = {
    "conv1d": case(L.Conv1D, LINE, 6, 3),
    "conv1d causal dilated": case(L.Conv1D, LINE, 6, 3, padding="causal", dilation_rate=2),
    "conv1d strided same": case(L.Conv1D, LINE, 6, 3, strides=2, padding="same"),
    "conv1d grouped": case(L.Conv1D, LINE, 6, 3, groups=2),
    "conv2d": case(L.Conv2D, IMAGE, 6, (3, 2)),
    "conv2d same": case(L.Conv2D, IMAGE, 6, 3, padding="same"),
    "conv2d pointwise": case(L.Conv2D, IMAGE, 5, 1),
    "conv2d strided": case(L.Conv2D, IMAGE, 6, 3, strides=(2, 3), padding="same"),
    "conv2d dilated": case(L.Conv2D, IMAGE, 6, 3, dilation_rate=(2, 1), padding="same"),
    "conv2d grouped": case(L.Conv2D, IMAGE, 8, 3, groups=2),
    "conv2d groups of one": case(L.Conv2D, IMAGE, 8, 3, groups=4),
    "conv2d of one channel": case(L.Conv2D, (9, 8, 1), 4, 3),
    "conv3d": case(L.Conv3D, CUBE, 5, 2, strides=(1, 2, 1), padding="same"),
    "conv3d dilated": case(L.Conv3D, CUBE, 5, 2, dilation_rate=2),
    "conv3d grouped": case(L.Conv3D, CUBE, 4, 2, groups=2),
    **{f"depthwise1d times {m}": case(L.DepthwiseConv1D, LINE, 3, depth_multiplier=m) for m in (1, 2, 3)},
    **{f"depthwise2d times {m}": case(L.DepthwiseConv2D, IMAGE, 3, depth_multiplier=m, padding="same") for m in (1, 2, 3)},
    "depthwise2d strided": case(L.DepthwiseConv2D, IMAGE, (3, 2), strides=2, depth_multiplier=2),
    "depthwise2d dilated": case(L.DepthwiseConv2D, IMAGE, 3, dilation_rate=(2, 2), depth_multiplier=2, padding="same"),
    "transpose1d": case(L.Conv1DTranspose, LINE, 5, 3, strides=2),
    "transpose2d": case(L.Conv2DTranspose, IMAGE, 5, 3, strides=2, padding="same"),
    "transpose2d square": case(L.Conv2DTranspose, IMAGE, 4, 3),  # as many channels out as in: a mixed-up axis has the right shape
    "transpose2d output padding": case(L.Conv2DTranspose, IMAGE, 5, 3, strides=2, padding="same", output_padding=1),
    "transpose3d": case(L.Conv3DTranspose, CUBE, 3, 2, strides=(1, 2, 1)),
    "separable1d": case(L.SeparableConv1D, LINE, 5, 3, depth_multiplier=2),
    "separable2d": case(L.SeparableConv2D, IMAGE, 5, 3, depth_multiplier=2, padding="same"),
    "dense of rank 2": case(L.Dense, (7,), 5),
    "dense of rank 3": case(L.Dense, (6, 7), 5),
    "dense of rank 4": case(L.Dense, (3, 4, 7), 5),
    "dense square": case(L.Dense, (6, 6), 6),
    "depthwise2d channels first": case(L.DepthwiseConv2D, (4, 9, 8), 3, depth_multiplier=2, **FIRST),
    "separable2d channels first": case(L.SeparableConv2D, (4, 9, 8), 5, 3, **FIRST),
}

UNRUNNABLE: dict[str, FoldCase] = {
    "conv1d channels first": case(L.Conv1D, (4, 12), 6, 3, **FIRST),
    "conv2d channels first": case(L.Conv2D, (4, 9, 10), 6, 3, **FIRST),
    "conv3d channels first": case(L.Conv3D, (2, 6, 5, 7), 5, 2, **FIRST),
    "conv2d grouped channels first": case(L.Conv2D, (4, 9, 8), 8, 3, groups=2, **FIRST),
    "transpose2d channels first": case(L.Conv2DTranspose, (4, 9, 8), 5, 3, strides=2, **FIRST),
    "transpose2d dilated": case(L.Conv2DTranspose, IMAGE, 5, 3, dilation_rate=2),
}
"""On a CPU, Keras can build these and not run them."""

ALL = CASES | UNRUNNABLE


def bite(model: keras.Model, seed: int = 0) -> keras.Model:
    """Seeded weights that every lost term changes: statistics far from Keras's defaults, some gammas negative."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        shape = variable.shape
        if "float" not in variable.dtype:
            continue
        if variable.name == "gamma":
            value = generator.uniform(0.3, 2.0, shape) * generator.choice([-1, 1], shape)
        elif variable.name == "moving_variance":
            value = generator.uniform(0.2, 3.0, shape)
        else:
            value = generator.normal(0.0, 0.5, shape)
        variable.assign(value)
    return model


def batch(model: keras.Model, seed: int = 1, size: int = 8) -> np.ndarray:
    shape = [d or size for d in model.inputs[0].shape]
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def chain(*layers: Any, shape: tuple[int, ...], seed: int = 0, dtype: str | None = None) -> keras.Model:
    """A functional model that calls the layers one after the other; its output goes by the name of a last one that does nothing."""
    x = y = keras.Input(shape, dtype=dtype, name="x")
    for layer in [*layers, L.Identity(name="y", dtype=dtype)]:
        y = layer(y)
    return bite(keras.Model(x, y, name="m"), seed)


def scale_and_shift(bn: Any) -> tuple[np.ndarray, np.ndarray]:
    """a = gamma / sqrt(variance + epsilon) and beta - mean·a, from the layer's own variables."""
    mean, variance = (np.asarray(v, np.float64) for v in (bn.moving_mean, bn.moving_variance))
    a = np.ones_like(mean) if bn.gamma is None else np.asarray(bn.gamma, np.float64)
    a = a / np.sqrt(variance + bn.epsilon)
    beta = np.zeros_like(mean) if bn.beta is None else np.asarray(bn.beta, np.float64)
    return a, beta - mean * a


def expected_weights(layer: Any, bn: Any) -> list[np.ndarray]:
    """What the layer's weights become, in the order of `layer.weights`, by the layout of each kind."""
    a, shift = scale_and_shift(bn)
    *kernels, last = [np.asarray(w, np.float64) for w in layer.weights]
    bias = shift
    if layer.bias is not None:
        bias = last * a + shift
    else:
        kernels = [*kernels, last]
    kernel = kernels[-1].copy()
    name = type(layer).__name__
    if name.startswith("DepthwiseConv"):
        multiplier = kernel.shape[-1]
        for channel in range(kernel.shape[-2]):
            for m in range(multiplier):
                kernel[..., channel, m] *= a[channel * multiplier + m]
    elif name.endswith("Transpose"):
        for out in range(kernel.shape[-2]):
            kernel[..., out, :] *= a[out]
    else:
        for out in range(kernel.shape[-1]):
            kernel[..., out] *= a[out]
    return [array.astype(np.float32) for array in (*kernels[:-1], kernel, bias)]


def own_error_ratio(new: keras.Model, old: keras.Model, x: Any) -> float:
    """The new model's error against float64 in proportion to the old one's own."""
    truth = zoo.float64_outputs(old, x)
    return zoo.relative_error(new(x, training=False), truth) / zoo.relative_error(old(x, training=False), truth)

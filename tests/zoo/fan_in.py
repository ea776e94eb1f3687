"""How many products a kernel sums into one output."""

from __future__ import annotations

import math

import keras

__all__ = ["fan_in"]


def fan_in(layer: keras.layers.Layer, variable: keras.Variable) -> int:
    """Products per output of the kernel `variable` of `layer`.

    The name cannot tell: Keras 3 calls a depthwise kernel, ``(*window, channels, multiplier)``, just "kernel".
    """
    shape = tuple(variable.shape)
    if "depthwise" in variable.name or type(layer).__name__.startswith("DepthwiseConv"):
        return math.prod(shape[:-2])
    if type(layer).__name__.endswith("Transpose"):
        return math.prod(shape[:-2]) * shape[-1]
    return math.prod(shape[:-1])

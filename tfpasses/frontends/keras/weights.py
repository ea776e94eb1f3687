"""Weights on their way into a written model: copied once, and then held once by the model and the graph together."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from tfpasses.frontends.keras.read import layer_array
from tfpasses.graph import Array, Graph

__all__ = ["Given", "hold_once", "new_tensor"]

ALIGNMENT = 64
"""Bytes. TensorFlow takes over a buffer that begins at a multiple of this, and copies any other."""


@attrs.frozen
class Given:
    """An initializer that gives a certain value: a layer is born with its weights instead of drawing random ones first."""

    value: Any

    def __call__(self, shape: Any, dtype: Any = None, **_: Any) -> Any:
        """The value, where it has the shape that is asked for; else a `ValueError`."""
        if tuple(shape) != self.value.shape:
            raise ValueError(f"a weight of shape {tuple(shape)} was to be given {self.value.shape}")
        return new_tensor(self.value) if dtype == self.value.dtype.name else self.value


def new_tensor(array: Array) -> Any:
    """A tensor with an array's values, in memory of its own: one copy, where `tf.convert_to_tensor` makes two.

    A dtype that DLPack does not know (bfloat16, bool, strings) gives the array itself.
    """
    if array.dtype.kind not in "iufc":
        return array
    memory = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return tf.experimental.dlpack.from_dlpack(copy.__dlpack__())


def hold_once(graph: Graph, key: str, variable: Any) -> None:
    """Let a weight that a pass made, and that now lies in a variable too, be held there alone: the graph gets a view in its place,
    equal bit for bit. TensorFlow copies a variable that is viewed before it writes to it, so the view never changes.

    Weights that somebody can write to are none of ours, and those in TensorFlow's memory are held once already.
    """
    array = graph.weights[key]
    if not isinstance(graph.weights, dict) or array.flags.writeable or not in_own_memory(array):
        return
    view = layer_array(variable)
    if (view.dtype, view.shape) == (array.dtype, array.shape):
        graph.weights[key] = view


def in_own_memory(array: Array) -> bool:
    """Whether NumPy allocated an array's elements; what was read from a model lies in TensorFlow's memory."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.flags.owndata

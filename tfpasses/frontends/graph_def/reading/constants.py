"""The values of constants, read from their NodeDefs."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, cast

import numpy as np
import tensorflow as tf

from tfpasses.frontends.graph_def.protos.attributes import dtype_name
from tfpasses.frontends.graph_def.reading.room import Room
from tfpasses.frontends.graph_def.reading.specs import one_spec
from tfpasses.frontends.graph_def.reading.wiring import shown
from tfpasses.graph import Array, GraphError, Spec

__all__ = ["constant"]

MOST_REPEATED = 1 << 24
"""A constant may be stored as its first elements, the last of which stands for all that follow: up to so many."""
MOST_EMPTY = 1 << 20
"""A constant without elements may be of no larger shape, counted without the zeros: as nested lists it would take memory."""
FIELDS: dict[int, str] = {
    tf.float32.as_datatype_enum: "float_val",
    tf.float64.as_datatype_enum: "double_val",
    tf.int32.as_datatype_enum: "int_val",
    tf.int64.as_datatype_enum: "int64_val",
    tf.bool.as_datatype_enum: "bool_val",
}
"""Where a TensorProto lists elements as they are, by their dtype. Other dtypes are left to TensorFlow."""


def constant(node: Any, room: Room) -> tuple[Array, tuple[Spec]]:
    """The value of a constant, read-only, and its spec. What is stored as bytes is not copied.

    Raises `GraphError` where there is none, or where it does not fit its shape or dtype.
    """
    attributes = node.attr
    try:
        if "value" not in attributes:  # a protocol buffer's map makes what it is asked for
            raise ValueError("it has none")
        tensor = attributes["value"].tensor
        dtype = tensor.dtype
        if "dtype" not in attributes or attributes["dtype"].type != dtype:
            raise ValueError("its value is of another dtype than its node")
        kind = numpy_dtype(dtype)
        shape = tuple([dim.size for dim in tensor.tensor_shape.dim[:]])
        content = tensor.tensor_content
        array = np.frombuffer(content, kind).reshape(shape) if content else listed(tensor, shape, kind, room)
        if array.shape != shape:
            raise ValueError(f"it is of shape {array.shape}, said to be of {shape}")
    except (TypeError, ValueError, OverflowError) as error:
        raise GraphError(f"node {node.name}: its constant cannot be read ({shown(' '.join(str(error).split()))})") from error
    array.setflags(write=False)
    return array, one_spec(shape, dtype_name(dtype))


@cache
def numpy_dtype(number: int) -> Any:
    """Raises `TypeError` for numbers that TensorFlow does not have, or of which it has no arrays."""
    try:
        return np.dtype(tf.as_dtype(number).as_numpy_dtype)
    except KeyError as error:
        raise TypeError(f"there are no arrays of dtype {dtype_name(number)}") from error


def listed(tensor: Any, shape: tuple[int, ...], kind: Any, room: Room) -> Array:
    """The value of a constant whose elements are stored one by one; the last may stand for many."""
    if shape and min(shape) < 0:
        raise ValueError(f"it is said to be of shape {list(shape)}")
    size = math.prod(shape)
    stored = tensor.ByteSize()
    if size == 0 and math.prod(filter(None, shape)) > MOST_EMPTY:
        raise ValueError("it is empty and of a shape that is too large")
    if size > stored and (size > MOST_REPEATED or not room.take(size * kind.itemsize)):
        raise ValueError(f"{size} elements in {stored} bytes")
    field = FIELDS.get(tensor.dtype)
    if field is not None:
        elements = getattr(tensor, field)
        if len(elements) in (1, size):
            array: Array = np.fromiter(elements, kind)
            return array.reshape(shape) if len(elements) == size else np.broadcast_to(array, shape)
    return cast(Array, tf.make_ndarray(tensor))

"""New NodeDefs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfpasses.graph import Array, Node, Spec, channel_axis

__all__ = [
    "FEWEST_STORED",
    "STORED",
    "bias_add",
    "binary",
    "cast",
    "const",
    "handle",
    "identity",
    "identity_n",
    "node_def",
    "read_variable",
    "tensor_proto",
]

TensorProto = type(tf.make_tensor_proto(0))
TensorShape = type(tf.TensorShape([]).as_proto())
STORED = {np.dtype(one.as_numpy_dtype): one.as_datatype_enum for one in (tf.float32, tf.float64, tf.int32, tf.int64)}
"""The dtypes of which a TensorProto holds arrays as their bytes,"""
FEWEST_STORED = 2
"""of so many elements or more."""
MOST_BIASED = 5
"""The most axes, and 3 the fewest, of channels-first values that TensorFlow's BiasAdd takes."""


def node_def(name: str, op: str, *inputs: str, **attributes: Any) -> Any:
    """A NodeDef; attributes are dtypes by name (those that end in `type`, and `T`), texts, or AttrValues."""
    one = tf.compat.v1.NodeDef(name=name, op=op, input=inputs)
    for key, value in attributes.items():
        if isinstance(value, tf.compat.v1.AttrValue):
            one.attr[key].CopyFrom(value)
        elif key in DTYPES:
            one.attr[key].type = tf.as_dtype(value).as_datatype_enum
        else:
            one.attr[key].s = value.encode()
    return one


DTYPES = ("T", "SrcT", "DstT", "dtype")


def const(name: str, array: Array) -> Any:
    """A constant."""
    return node_def(name, "Const", value=tf.compat.v1.AttrValue(tensor=tensor_proto(array)), dtype=array.dtype.name)


def tensor_proto(array: Array) -> Any:
    """An array as a TensorProto: what `tf.make_tensor_proto` makes of it, in a tenth of its time."""
    dtype = STORED.get(array.dtype)
    if dtype is None or array.size < FEWEST_STORED:
        return tf.make_tensor_proto(np.asarray(array))
    shape = TensorShape(dim=[TensorShape.Dim(size=size) for size in array.shape])
    return TensorProto(dtype=dtype, tensor_shape=shape, tensor_content=array.tobytes())


def identity(name: str, value: str, dtype: str) -> Any:
    """Another name for a value."""
    return node_def(name, "Identity", value, T=dtype)


def identity_n(name: str, values: Sequence[str], dtypes: Sequence[str]) -> Any:
    """Another name for several values."""
    types = tf.compat.v1.AttrValue()
    types.list.type.extend(tf.as_dtype(dtype).as_datatype_enum for dtype in dtypes)
    return node_def(name, "IdentityN", *values, T=types)


def cast(name: str, value: str, source: str, target: str) -> Any:
    """A value in another dtype."""
    return node_def(name, "Cast", value, SrcT=source, DstT=target)


def binary(name: str, op: str, a: str, b: str, dtype: str) -> Any:
    """An operation of two values that broadcasts."""
    return node_def(name, op, a, b, T=dtype)


def bias_add(node: Node, value: str, bias: str, spec: Spec) -> Any:
    """The sum of a linear node's value and its bias, of the node's name."""
    rank = len(spec.dims)
    first = channel_axis(node, rank) == 1 and rank > 2
    return node_def(node.name, "BiasAdd", value, bias, T=spec.dtype, data_format="NCHW" if first else "NHWC")


def handle(name: str, like: Any, array: Array) -> Any:
    """The handle of a new variable, of the kind that another's NodeDef is."""
    shape = tf.TensorShape(array.shape).as_proto()
    if like.op == "Placeholder":  # a captured variable of a function
        return node_def(name, "Placeholder", dtype="resource", shape=tf.compat.v1.AttrValue(shape=tf.TensorShape([]).as_proto()))
    one = type(like)()
    one.CopyFrom(like)
    one.name = name
    del one.input[:]
    one.attr["shape"].shape.CopyFrom(shape)
    one.attr["dtype"].type = tf.as_dtype(array.dtype).as_datatype_enum
    if "shared_name" in one.attr:
        one.attr["shared_name"].s = name.encode()
    one.attr.pop("_class", None)
    one.attr.pop("_output_shapes", None)
    return one


def read_variable(name: str, of: Any, array: Array) -> Any:
    """The value of a variable, from its handle's NodeDef."""
    if of.op in ("Variable", "VariableV2"):
        return identity(name, of.name, array.dtype.name)
    return node_def(name, "ReadVariableOp", of.name, dtype=array.dtype.name)

"""A GraphDef in the wire format of protocol buffers, put together without the message: the arrays of constants are copied once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfpasses.graph import Array

__all__ = ["Content", "graph_bytes", "is_content_of", "without_content", "without_value"]

GRAPH, NODE, VALUE, TENSOR = tf.compat.v1.GraphDef, tf.compat.v1.NodeDef, tf.compat.v1.AttrValue, tf.make_tensor_proto(0)
NODES, ATTRIBUTE, OF_TENSOR, OF_CONTENT = (
    message.DESCRIPTOR.fields_by_name[name].number
    for message, name in ((GRAPH, "node"), (NODE, "attr"), (VALUE, "tensor"), (TENSOR, "tensor_content"))
)
LISTS = [field.name for field in TENSOR.DESCRIPTOR.fields if field.name.endswith("_val")]
"""Where a TensorProto lists elements, rather than to hold their bytes."""
OF_KEY, OF_VALUE = 1, 2
"""The fields of an entry of any map."""
DELIMITED = 2
"""The wire type of what has its length before it."""


class Content(NamedTuple):
    """The value of a constant."""

    tensor: Any
    """A TensorProto that lacks its `tensor_content` only."""
    array: Array
    """What that is to be."""


def graph_bytes(rest: Any, nodes: Mapping[str, Any], contents: Mapping[str, Content]) -> bytes:
    """The bytes of a GraphDef that is as `rest` and has these nodes. NodeDefs of names among `contents` have no attribute `value`: they get
    that one.
    """
    pieces: list[Any] = [rest.SerializeToString()]
    for name, one in nodes.items():
        body = one.SerializeToString()
        content = contents.get(name)
        if content is None:
            pieces += (length(NODES, len(body)), body)
        else:
            attribute = value_of(content)
            pieces += (length(NODES, len(body) + sum(map(len, attribute))), body, *attribute)
    return b"".join(pieces)


def without_value(source: Any) -> Any:
    """The NodeDef of a constant without its value, which is not copied."""
    new = type(source)(name=source.name, op=source.op, input=source.input, device=source.device)
    for key in source.attr:
        if key != "value":
            new.attr[key].CopyFrom(source.attr[key])
    for field in ("experimental_debug_info", "experimental_type"):
        if source.HasField(field):
            getattr(new, field).CopyFrom(getattr(source, field))
    return new


def without_content(tensor: Any) -> Any:
    """A TensorProto of the same dtype and shape."""
    return type(tensor)(dtype=tensor.dtype, tensor_shape=tensor.tensor_shape)


def is_content_of(tensor: Any, array: Array) -> bool:
    """Whether an array that was read from a TensorProto is all that this holds beside its dtype and shape."""
    root = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    return isinstance(root.base, bytes) and not tensor.version_number and not any(len(getattr(tensor, field)) for field in LISTS)


def value_of(content: Content) -> list[Any]:
    """An attribute of a NodeDef, in pieces."""
    elements = np.ascontiguousarray(content.array).reshape(-1).view(np.uint8)
    pieces: list[Any] = [content.tensor.SerializeToString(), length(OF_CONTENT, elements.size), elements]
    for field, before in ((OF_TENSOR, ()), (OF_VALUE, (KEY,)), (ATTRIBUTE, ())):
        pieces = [*before, length(field, sum(map(len, pieces))), *pieces]
    return pieces


def length(field: int, count: int) -> bytes:
    """What stands before a field of so many bytes."""
    return number(field << 3 | DELIMITED) + number(count)


def number(value: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last byte have their highest bit set."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


KEY = length(OF_KEY, len(b"value")) + b"value"

"""A NodeDef's attributes as a configuration: plain values, made when they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

__all__ = ["Attributes", "Dims", "dtype_name", "plain", "proto_shape"]

Dims = tuple[int | None, ...] | None

REFERENCE = 100
"""What TensorFlow adds to a dtype's number for a reference to a variable of it."""
DTYPES: dict[int, str] = {}


def dtype_name(number: int) -> str:
    """The name of a dtype of the protocol buffers; `unknown` for 0 and for numbers that TensorFlow does not have."""
    name = DTYPES.get(number)
    if name is None:
        try:
            name = tf.as_dtype(number % REFERENCE).name if number else "unknown"
        except TypeError:
            name = "unknown"
        DTYPES[number] = name
    return name


def proto_shape(shape: Any) -> Dims:
    """A TensorShapeProto as a tuple; None where the rank is not known."""
    return None if shape.unknown_rank else tuple([None if dim.size < 0 else dim.size for dim in shape.dim])


class Attributes(Mapping[str, Any]):
    """The attributes of one NodeDef. Those that begin with an underscore, and a constant's value, are there for who asks, but not
    counted in; `_control` are the names of the nodes that it waits for.
    """

    __slots__ = ("of", "waits")

    def __init__(self, node: Any, waits: bool = True) -> None:
        """`waits` may be False where it is known that the node waits for nothing: that is asked of all."""
        self.of = node
        self.waits = waits

    def __getitem__(self, key: str) -> Any:
        if key == "_control":
            return [text[1:] for text in self.of.input if text[:1] == "^"] if self.waits else []
        attributes = self.of.attr
        if key not in attributes:  # a protocol buffer's map makes what it is asked for
            raise KeyError(key)
        return plain(attributes[key])

    def get(self, key: str, default: Any = None) -> Any:
        """As every mapping has it, in less time."""
        if key == "_control":
            return self[key] if self.waits else default
        attributes = self.of.attr
        return plain(attributes[key]) if key in attributes else default

    def __iter__(self) -> Iterator[str]:
        return (key for key, value in sorted(self.of.attr.items()) if key[:1] != "_" and value.WhichOneof("value") != "tensor")

    def __len__(self) -> int:
        return sum(1 for _ in self)


def plain(value: Any) -> Any:
    """An AttrValue as a plain value: text, number, boolean, name of a dtype or function, shape as a tuple (None: of unknown rank), list."""
    kind = value.WhichOneof("value")
    if kind == "list":
        fields = value.list.ListFields()
        return [one(field.name, entry) for field, entries in fields for entry in entries]
    return None if kind is None else one(kind, getattr(value, kind))


def one(kind: str, value: Any) -> Any:
    if kind == "s":
        return value.decode() if value.isascii() else value  # a serialized protocol buffer stays bytes
    if kind == "type":
        return dtype_name(value)
    if kind == "shape":
        return proto_shape(value)
    if kind == "func":
        return value.name
    return value
